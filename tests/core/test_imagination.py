"""Latent rollouts under a policy, step by step."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from lit_pwm.imagination import discounted_return, imagine, td_lambda
from lit_pwm.models import CriticEnsemble, FlowActor, MLPActor, MLPDynamics, WorldModel, symexp

TASKS = {"a": (5, 3), "b": (4, 1)}


@pytest.fixture
def parts():
    torch.manual_seed(0)
    model = WorldModel(
        TASKS, partial(MLPDynamics, hidden_dim=16), latent_dim=16, encoder_dim=16, reward_dim=16, task_dim=4
    )
    for p in model.parameters():
        p.data.add_(0.3 * torch.randn_like(p))
    actor = MLPActor(16, 3, 2, hidden_dims=(12,), task_dim=3)
    actor.set_action_mask(model.action_mask())
    task = torch.tensor([0, 1, 1, 0, 1])
    return model.requires_grad_(False), actor, model.encode(torch.randn(5, 5), task), task, torch.randn(4, 5, 3)


def test_equals_a_loop(parts):
    model, actor, z, task, noise = parts
    rollout = imagine(model, actor, z, task, noise, reward_space="raw")
    assert rollout.latents.shape == (5, 5, 16)
    assert torch.equal(rollout.latents[0], z)
    for t in range(4):
        action = actor(z, task, noise=noise[t])
        torch.testing.assert_close(rollout.actions[t], action)
        torch.testing.assert_close(rollout.rewards[t], model.reward(z, action, task))
        z = model.next(z, action, task)
        torch.testing.assert_close(rollout.latents[t + 1], z)


def test_reward_spaces_differ_by_symexp(parts):
    symlog_rewards = imagine(*parts, reward_space="symlog").rewards
    torch.testing.assert_close(imagine(*parts, reward_space="raw").rewards, symexp(symlog_rewards))
    assert (symlog_rewards - symexp(symlog_rewards)).abs().max() > 1e-3


def test_deterministic_rollouts_ignore_the_noise(parts):
    model, actor, z, task, noise = parts
    first = imagine(model, actor, z, task, noise, deterministic=True)
    second = imagine(model, actor, z, task, -noise, deterministic=True)
    assert torch.equal(first.latents, second.latents)
    assert not torch.equal(first.latents, imagine(model, actor, z, task, noise).latents)


def test_the_cut_at_the_actors_input_removes_exactly_that_path(parts):
    """With the cut, an action's gradient is that of actions chosen in advance; without it, later actions answer too."""
    model, actor, z, task, noise = parts

    def gradient(detach):
        actor.zero_grad()
        imagine(model, actor, z, task, noise, "raw", detach_actor_input=detach).rewards.sum().backward()
        return torch.cat([p.grad.flatten() for p in actor.parameters()])

    cut, whole = gradient(True), gradient(False)
    assert (cut - whole).norm() > 1e-3 * whole.norm()

    states = imagine(model, actor, z, task, noise).latents[:-1].detach()
    actor.zero_grad()
    actions = [actor(state, task, noise=step) for state, step in zip(states, noise, strict=True)]
    model.rollout(z, torch.stack(actions), task)[1].sum().backward()
    chosen_in_advance = torch.cat([p.grad.flatten() for p in actor.parameters()])
    torch.testing.assert_close(cut, chosen_in_advance, rtol=1e-4, atol=1e-6)

    # And the whole gradient is the derivative of the return, by finite differences along one direction.
    exact_model, exact_actor = model.double(), actor.double()
    exact_actor.zero_grad()
    args = (exact_model, exact_actor, z.double(), task, noise.double(), "raw", False)
    imagine(*args).rewards.sum().backward()
    weight = exact_actor.mean.weight
    direction, step = torch.randn_like(weight), 1e-5
    slope = (weight.grad * direction).sum().item()
    with torch.no_grad():
        weight.add_(step * direction)
        above = imagine(*args).rewards.sum()
        weight.sub_(2 * step * direction)
        below = imagine(*args).rewards.sum()
    assert slope == pytest.approx((above - below).item() / (2 * step), rel=1e-4)


def test_discounted_return_of_known_numbers():
    rewards, value = torch.tensor([[1.0], [2.0], [4.0]]), torch.tensor([10.0])
    assert discounted_return(rewards, value, 0.5, 0.5**3).item() == pytest.approx(1 + 1 + 1 + 1.25)


def test_td_lambda_of_known_numbers():
    rewards, values = torch.tensor([[1.0], [2.0]]), torch.tensor([[3.0], [4.0]])
    last = 2 + 0.5 * 4
    assert td_lambda(rewards, values, 0.5, 0.25).flatten().tolist() == pytest.approx(
        [1 + 0.5 * (0.75 * 3 + 0.25 * last), last]
    )


def test_discounts_of_each_step_by_hand():
    rewards, value = torch.tensor([[1.0, 1.0], [2.0, 2.0]]), torch.tensor([4.0, 4.0])
    discounts = torch.tensor([[0.5, 0.0], [0.25, 0.5]])
    returns = discounted_return(rewards, value, discounts)
    assert returns.tolist() == [1 + 0.5 * 2 + 0.125 * 4, 1.0]
    assert discounted_return(rewards, value, discounts, 1.0).tolist() == [1 + 0.5 * 2 + 4, 5.0]
    targets = td_lambda(rewards, torch.tensor([[3.0, 3.0], [4.0, 4.0]]), discounts, 0.5)
    last = [2 + 0.25 * 4, 2 + 0.5 * 4]
    assert targets.tolist() == [[1 + 0.5 * (0.5 * 3 + 0.5 * last[0]), 1.0], last]


@pytest.mark.parametrize("shape", [(6, 7), (6, 3, 7)])
def test_a_tensor_of_one_discount_gives_what_the_number_does(shape):
    generator = torch.Generator().manual_seed(0)
    rewards, values = (torch.randn(shape, generator=generator) for _ in range(2))
    discounts = torch.full(shape, 0.97)
    torch.testing.assert_close(
        discounted_return(rewards, values[-1], discounts), discounted_return(rewards, values[-1], 0.97),
        atol=1e-6, rtol=1e-6,
    )  # fmt: skip
    torch.testing.assert_close(
        td_lambda(rewards, values, discounts, 0.9), td_lambda(rewards, values, 0.97, 0.9), atol=1e-6, rtol=1e-6
    )


def test_a_number_as_discount_keeps_its_arithmetic_to_the_bit():
    """As the functions were written when the fixtures of tests/fixtures_v1 were made."""
    rewards, values = torch.randn(16, 64), torch.randn(16, 64)
    weights = 0.99 ** torch.arange(16, dtype=rewards.dtype)
    wanted = (weights[:, None] * rewards).sum(0) + 0.99**16 * values[-1]
    assert torch.equal(discounted_return(rewards, values[-1], 0.99, 0.99**16), wanted)
    assert torch.equal(discounted_return(rewards, values[-1], 0.99), wanted)
    targets = [rewards[-1] + 0.99 * values[-1]]
    for reward, value in zip(rewards[:-1].flip(0), values[:-1].flip(0), strict=True):
        targets.append(reward + 0.99 * ((1 - 0.95) * value + 0.95 * targets[-1]))
    assert torch.equal(td_lambda(rewards, values, 0.99, 0.95), torch.stack(targets[::-1]))


@pytest.mark.parametrize("kind", [MLPActor, FlowActor])
def test_any_leading_axes(parts, kind):
    """Candidates of a planner beside starts: each row is what it would be alone."""
    model, _, z, task, _ = parts
    actor, critic = kind(16, 3, 2, hidden_dims=(12,), task_dim=3), CriticEnsemble(16, 2, hidden_dims=(8,), task_dim=3)
    actor.set_action_mask(model.action_mask())
    noise = torch.randn(4, 7, 5, 3)
    batched = imagine(model, actor, z.expand(7, 5, 16), task, noise, "raw")
    assert batched.latents.shape == (5, 7, 5, 16)
    assert batched.actions.shape == (4, 7, 5, 3)
    assert batched.rewards.shape == (4, 7, 5)
    values = critic.minimum(batched.latents[-1], task)
    zs, rewards = model.rollout(z.expand(7, 5, 16), batched.actions, task)
    torch.testing.assert_close(zs, batched.latents, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(rewards, batched.rewards, atol=1e-5, rtol=1e-5)
    for candidate in range(7):
        alone = imagine(model, actor, z, task, noise[:, candidate], "raw")
        torch.testing.assert_close(batched.latents[:, candidate], alone.latents, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(batched.rewards[:, candidate], alone.rewards, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(values[candidate], critic.minimum(alone.latents[-1], task), atol=1e-5, rtol=1e-5)
