"""Defects of the reference implementations, shown, and that ours lacks them."""

from __future__ import annotations

import pytest
import torch

from lit_pwm.imagination import discounted_return, imagine, td_lambda
from lit_pwm.losses import WorldModelObjective
from lit_pwm.models import MLPDynamics, WorldModel
from lit_pwm.optim import check_each_parameter_once
from lit_pwm.options.optimizers import WorldModelOptimizer


def reference_td_lambda(rewards, next_values, done, gamma=0.99, lam=0.95):
    """PWM's recursion as its code has it, with the done mask that its callers pass."""
    targets, a, b = torch.zeros_like(rewards), torch.zeros_like(rewards[0]), torch.zeros_like(rewards[0])
    mixed = torch.ones_like(rewards[0])
    for i in reversed(range(len(rewards))):
        d = done[i]
        mixed = mixed * lam * (1 - d) + d
        a = (1 - d) * (lam * gamma * a + gamma * next_values[i] + (1 - mixed) / (1 - lam) * rewards[i])
        b = gamma * (next_values[i] * d + b * (1 - d)) + rewards[i]
        targets[i] = (1 - lam) * a + mixed * b
    return targets


@pytest.fixture
def rollout_numbers():
    generator = torch.Generator().manual_seed(0)
    rewards = torch.randn(16, 32, generator=generator, dtype=torch.float64)
    return rewards, torch.randn(16, 32, generator=generator, dtype=torch.float64)


def test_td_lambda_is_the_references_recursion_with_done_only_at_the_end(rollout_numbers):
    rewards, values = rollout_numbers
    done = torch.zeros_like(rewards)
    done[-1] = 1
    for lam in (0.0, 0.5, 0.95):
        expected = reference_td_lambda(rewards, values, done, lam=lam)
        torch.testing.assert_close(td_lambda(rewards, values, 0.99, lam), expected, rtol=1e-10, atol=1e-10)


def test_td_lambda_of_one_is_the_monte_carlo_return(rollout_numbers):
    rewards, values = rollout_numbers
    for start in (0, 5, 15):
        weights = 0.99 ** torch.arange(16 - start, dtype=torch.float64)
        expected = (weights[:, None] * rewards[start:]).sum(0) + 0.99 ** (16 - start) * values[-1]
        torch.testing.assert_close(td_lambda(rewards, values, 0.99, 1.0)[start], expected)


def test_lambda_has_no_effect_in_the_reference_and_has_in_ours(rollout_numbers, oracle):
    rewards, values = rollout_numbers
    everywhere = torch.ones_like(rewards)
    one_step = rewards + 0.99 * values
    for lam in (0.0, 0.95):
        torch.testing.assert_close(reference_td_lambda(rewards, values, everywhere, lam=lam), one_step)
    assert (td_lambda(rewards, values, 0.99, 0.95) - one_step).abs().max() > 0.5
    # The recorded run was asked for λ = 0.95 and computed one-step targets.
    numbers = oracle("pwm_update")
    for update in ("it0", "it1"):
        r, v, targets = (numbers[f"{update}/{name}"] for name in ("rew_buf", "next_values", "target_values"))
        torch.testing.assert_close(targets, r + 0.99 * v)
        assert (td_lambda(r, v, 0.99, 0.95) - targets).abs().max() > 0.1


def test_the_last_value_is_discounted_once_too_often_in_the_reference(oracle):
    numbers = oracle("pwm_update")
    r, v = numbers["it0/rew_buf"], numbers["it0/next_values"][-1]
    recorded = -numbers["it0/neg_return_per_sample"]
    torch.testing.assert_close(discounted_return(r, v, 0.99, 0.99**17), recorded, atol=1e-5, rtol=1e-5)
    assert (discounted_return(r, v, 0.99, 0.99**16) - recorded).abs().max() > 1e-2
    # γ^H is the value that makes the return of H steps agree with that of H + 1 when the value is right.
    longer = torch.cat([r, torch.ones(1, 32)])
    value_after = torch.full((32,), 3.0)
    consistent = 1.0 + 0.99 * value_after
    torch.testing.assert_close(
        discounted_return(r, consistent, 0.99, 0.99**16), discounted_return(longer, value_after, 0.99, 0.99**17)
    )


def reference_finetuning_loss(model, batch, gamma=0.99):
    """PWM's `compute_wm_loss`: sums over time, no coefficients, the scalar reward broadcast over all 101 logits."""
    z, dynamics, rewards = model.encode(batch["obs"][0], batch["task"]), 0.0, []
    for t, action in enumerate(batch["action"]):
        logits = model.reward_logits(z, action, batch["task"])
        rewards.append(gamma**t * (logits - batch["reward"][t][:, None]).square())
        z = model.next(z, action, batch["task"])
        with torch.no_grad():
            target = model.encode(batch["obs"][t + 1], batch["task"])
        dynamics = dynamics + gamma**t * (z - target).square().mean()
    horizon = len(batch["action"])
    return dynamics / horizon, torch.stack(rewards).mean() / horizon


def recorded_batch(numbers):
    return {"obs": numbers["obs"], "action": numbers["act"], "reward": numbers["rew"][..., 0], "task": numbers["task"]}


def fresh_model():
    torch.manual_seed(0)
    return WorldModel(
        {f"task-{i}": (24, 6) for i in range(30)},
        lambda *dims: MLPDynamics(*dims, hidden_dim=64),
        latent_dim=32,
        encoder_dim=32,
        reward_dim=64,
        task_dim=8,
    )


def decoded_after(model, batch, loss, updates=100):
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(updates):
        optimizer.zero_grad()
        value = loss(model, batch)
        value.backward()
        optimizer.step()
        losses.append(value.item())
    with torch.no_grad():
        z = model.encode(batch["obs"][:-1], batch["task"])
        logits = model.reward_logits(z, batch["action"], batch["task"])
        return losses, logits, model.reward_head.two_hot.decode(logits)


def test_squared_error_over_bins_decodes_to_zero_and_cross_entropy_does_not(oracle, pwm_networks):
    numbers = oracle("pwm_update")
    batch = recorded_batch(numbers)
    with torch.no_grad():
        dynamics, reward = reference_finetuning_loss(pwm_networks[0], batch)
    recorded = {name: numbers[f"pwm_wm_{name}"].item() for name in ("total", "dyn", "rew")}
    assert (dynamics + reward).item() == pytest.approx(recorded["total"], rel=1e-5)
    # That was the loss it recorded. From here on rewards are far from zero, and the task alone decides them.
    truth = (0.5 + (batch["task"] % 3).float()).expand(4, -1)
    batch = {**batch, "obs": batch["obs"][:5], "action": batch["action"][:4], "reward": truth}

    losses, logits, decoded = decoded_after(fresh_model(), batch, lambda m, b: sum(reference_finetuning_loss(m, b)))
    assert losses[-1] < 0.5 * losses[0], "its loss falls as if it learned"
    assert (logits.max(-1).values - logits.min(-1).values).max() < 1e-5
    assert decoded.abs().max() < 1e-5

    _, _, ours = decoded_after(fresh_model(), batch, lambda m, b: WorldModelObjective()(m, b)["total"], updates=250)
    assert (ours - truth).abs().max() < 0.25
    assert truth.min() == 0.5 and truth.max() == 2.5  # noqa: PT018


def test_task_embeddings_are_trained_and_enter_the_clipped_norm_once(oracle):
    """The reference leaves them out of the optimizer, so that they stay random and their gradient piles up."""
    batch = recorded_batch(oracle("pwm_update"))
    model = fresh_model()
    theirs = torch.optim.Adam([p for name, p in model.named_parameters() if "task_embedding" not in name], lr=1e-2)
    before = model.task_embedding.weight.detach().clone()
    for _ in range(5):
        theirs.zero_grad()
        WorldModelObjective()(model, batch)["total"].backward()
        theirs.step()
    torch.testing.assert_close(model.task_embedding.weight.detach(), before, rtol=0, atol=0)
    theirs.zero_grad()
    assert model.task_embedding.weight.grad is not None, "it is carried into the next update's norm"

    model = fresh_model()
    ours = torch.optim.Adam(WorldModelObjective().parameter_groups(model, WorldModelOptimizer(1e-2, 0.3)))
    check_each_parameter_once(model, ours)
    seen = batch["task"].unique()
    before = model.task_embedding.weight.detach().clone()
    ours.zero_grad()
    WorldModelObjective()(model, batch)["total"].backward()
    ours.step()
    moved = (model.task_embedding.weight.detach() - before).abs().amax(1)
    assert (moved[seen] > 0).all()
    unseen = torch.ones(30, dtype=torch.bool)
    unseen[seen] = False
    assert (moved[unseen] == 0).all()
    ours.zero_grad()
    assert all(p.grad is None for p in model.parameters())


def test_imagined_actions_of_padded_dimensions_are_zero_where_the_reference_feeds_noise(oracle, pwm_networks):
    numbers = oracle("pwm_update")
    world_model, actor, _ = pwm_networks
    task = numbers["task"]

    def padded_actions():
        with torch.no_grad():
            z = world_model.encode(numbers["obs"][0], task)
            return imagine(world_model, actor, z, task, numbers["eps"][0]).actions[..., 2:]

    assert padded_actions().abs().min() > 0  # a mask of ones, as in the reference
    mask = torch.ones(30, 6)
    mask[:, 2:] = 0
    actor.set_action_mask(mask)
    assert padded_actions().abs().max() == 0


def test_a_frozen_world_model_accumulates_no_gradient(pwm_networks, oracle):
    numbers = oracle("pwm_update")
    world_model, actor, critic = pwm_networks
    world_model.requires_grad_(False)
    z = world_model.encode(numbers["obs"][0], numbers["task"])
    rollout = imagine(world_model, actor, z, numbers["task"], numbers["eps"][0])
    value = critic.minimum(rollout.latents[-1], numbers["task"])
    (-discounted_return(rollout.rewards, value, 0.99, 0.99**16).mean()).backward()
    assert all(p.grad is None for p in world_model.parameters())
    assert all(p.grad.abs().sum() > 0 for p in actor.parameters() if p.numel())
