"""Imagined against real return: from the right states, over the right steps, without touching the episodes."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch

from lit_pwm.evaluation.evaluator import RandomPolicy, TaskResult, evaluate_task
from lit_pwm.evaluation.model_gap import EVERY, STEPS, ModelGap, VisitedStates, imagined_rewards, merge_gaps
from lit_pwm.models import ChainedMatching, FlowDynamics, MLPActor, NoiseSource, Policy, WorldModel
from lit_pwm.tasks import make_env

TASK = "cup-catch"


@pytest.fixture(scope="module")
def policy(network_policy):
    policy = network_policy("cheetah-run", TASK)
    with torch.no_grad():  # rewards that depend on the state
        policy.world_model.reward_head.net[-1].weight.normal_(std=0.05)
    return policy


def by_hand(policy, seed):
    """Visited states and rewards of an episode, and the imagined sums from a loop over the world model's parts."""
    env = make_env(TASK)
    obs, _ = env.reset(seed=seed)
    seen, rewards, ended = [], [], False
    while not ended:
        batch = np.zeros((16, len(obs)), np.float32)
        batch[seed % 16] = obs
        seen.append(obs)
        obs, reward, terminated, truncated, _ = env.step(policy.act(batch, TASK)[seed % 16])
        rewards.append(reward)
        ended = terminated or truncated
    model, imagined, real = policy.world_model, [], []
    task = torch.tensor([policy.task_names.index(TASK)])
    for start in range(0, len(seen) - STEPS + 1, EVERY):
        padded = np.pad(seen[start], (0, model.obs_dim - len(seen[start]))).astype(np.float32)
        z, total = model.encode(torch.from_numpy(padded)[None], task), 0.0
        for _ in range(STEPS):
            action = policy.actor(z, task, deterministic=True)
            total += model.reward(z, action, task).item()
            z = model.next(z, action, task)
        imagined.append(total)
        real.append(sum(rewards[start : start + STEPS]))
    return imagined, real


def test_the_gap_is_that_of_a_plain_loop(policy):
    result = evaluate_task(policy, TASK, 2, 20, mode="sync")
    with torch.no_grad():
        imagined, real = (
            np.concatenate(parts) for parts in zip(*(by_hand(policy, seed) for seed in (20, 21)), strict=True)
        )
    gap = result.model_gap
    assert gap.starts == len(real) == 20
    assert gap.real == pytest.approx(real.mean(), rel=1e-9)
    assert gap.imagined == pytest.approx(imagined.mean(), rel=1e-4)
    assert abs(gap.imagined) > 1e-3
    assert gap.gap == gap.imagined - gap.real
    assert gap.to_json()["gap"] == gap.gap


def test_policies_without_a_world_model_and_sampled_actions_have_none(policy):
    assert evaluate_task(RandomPolicy(), TASK, 1, 0, mode="sync").model_gap is None
    assert evaluate_task(policy, TASK, 1, 0, mode="sync", deterministic=False).model_gap is None


def test_states_near_an_end_and_ended_episodes_do_not_count(policy):
    visited = VisitedStates(policy, TASK)
    lengths = np.array([EVERY + STEPS, EVERY + STEPS - 1, STEPS - 1])
    for step in range(EVERY + STEPS):
        visited.add(np.full((3, 8), step, np.float32), np.array([1.0, 10.0, 100.0]), step < lengths)
    gap = visited.compare()
    assert gap.starts == 3  # two of the first episode, one of the second, none of the third
    assert gap.real == pytest.approx((16 + 16 + 160) / 3)
    expected = imagined_rewards(policy, TASK, np.array([[0.0] * 8] * 2 + [[EVERY] * 8], np.float32), STEPS)
    assert gap.imagined == pytest.approx(expected.sum(0).mean(), rel=1e-5)
    short = VisitedStates(policy, TASK)
    short.add(np.zeros((1, 8), np.float32), np.ones(1), np.ones(1, bool))
    assert merge_gaps([short.compare()]) is None


def test_with_a_continuation_head_steps_count_that_are_made(network_policy):
    """Both returns are Σ w r / Σ w over steps and starts, times the steps; an end by termination cuts none off."""
    policy = network_policy(TASK)
    model = policy.world_model
    with torch.no_grad():
        model.reward_head.net[-1].weight.normal_(std=0.05)
        model.add_continuation_()
        model.continuation_head.net[-1].weight.normal_(std=0.3)
        model.continuation_head.net[-1].bias.fill_(2)
    model.know_ends_({TASK: True})
    visited, steps = VisitedStates(policy, TASK), EVERY + STEPS - 1
    # One goes on, one terminates in its sixth step, one is cut off there, one diverges.
    ends = np.array([steps, 6, 6, 6])
    earned = np.array([[1.0], [10.0], [100.0], [1000.0]])[:, 0]
    for step in range(steps):
        terminated = np.array([False, step == 5, False, step == 5])
        visited.add(np.full((4, 8), step / 50, np.float32), earned, step < ends, terminated)
    visited.discard(np.array([False, False, False, True]))
    gap = visited.compare()
    assert gap.starts == 2, "the state near the end of what is known is left out"
    assert gap.real == pytest.approx(STEPS * (16 * 1 + 6 * 10) / (16 + 6))
    obs, task, above, below = torch.zeros(1, 8), torch.tensor([0]), 0.0, 0.0
    with torch.no_grad():
        z, alive = model.encode(obs, task), 1.0
        for _ in range(STEPS):
            action = policy.actor(z, task, deterministic=True)
            above, below = above + alive * model.reward(z, action, task).item(), below + alive
            alive, z = alive * model.continuation(z, action, task).item(), model.next(z, action, task)
    assert below < 0.9 * STEPS
    assert gap.imagined == pytest.approx(STEPS * above / below, rel=1e-4)
    assert gap.survived == pytest.approx((2 * below / STEPS, 22 / STEPS), rel=1e-4)
    merged = merge_gaps([gap, ModelGap(3.0, 1.0, 1, survived=(0.5, 0.25))])
    assert merged.real == pytest.approx((gap.real * 22 / STEPS + 0.25) / (22 / STEPS + 0.25))
    assert merged.starts == 3


def test_gaps_are_merged_by_their_starts():
    merged = merge_gaps([ModelGap(3.0, 1.0, 1), ModelGap(1.0, 2.0, 3)])
    assert (merged.imagined, merged.real, merged.starts) == (1.5, 1.75, 4)
    assert TaskResult((1.0,), merged).model_gap.gap == -0.25


def test_models_that_sample_repeat_themselves_and_leave_the_random_stream_alone():
    torch.manual_seed(0)
    noisy = partial(FlowDynamics, hidden_dim=8, source=NoiseSource, loss=ChainedMatching())
    model = WorldModel({TASK: (8, 2)}, noisy, 16, 4, encoder_dim=8, reward_dim=8)
    with torch.no_grad():
        model.reward_head.net[-1].weight.normal_()
        model.dynamics.field.head.weight.normal_()
    policy = Policy(model, MLPActor(16, 2, 1, hidden_dims=(8,)), (TASK,)).eval()
    obs, before = np.zeros((2, 8), np.float32), torch.get_rng_state()
    first, again = imagined_rewards(policy, TASK, obs, 4), imagined_rewards(policy, TASK, obs, 4)
    assert torch.equal(before, torch.get_rng_state())
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first[1:, 0], first[1:, 1])  # the same start, other noise
