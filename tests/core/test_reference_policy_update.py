"""Two consecutive PWM updates, composed of the plain functions that `PolicyLearning` is made of."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from lit_pwm.imagination import discounted_return, imagine, td_lambda
from lit_pwm.models import RunningStats
from lit_pwm.models.layers import constrain_
from lit_pwm.optim import linear_decay

GAMMA = 0.99


@dataclass
class Update:
    """What one update computed, under the oracle's names."""

    neg_return_per_sample: Tensor
    ret_rms_mean: Tensor
    ret_rms_var: Tensor
    ret_rms_count: Tensor
    actor_loss: Tensor
    actor_grad_norm_before_clip: Tensor
    actor_grad_clipped: dict[str, Tensor]
    z_buf: Tensor
    rew_buf: Tensor
    next_values: Tensor
    target_values: Tensor
    critic_step_losses: Tensor
    value_loss: Tensor
    actor_after: dict[str, Tensor]
    critic_after: dict[str, Tensor]


@pytest.fixture
def updates(pwm_networks, oracle):
    """Both updates with PWM's settings, and its two defects chosen by arguments."""
    world_model, actor, critic = pwm_networks
    numbers = oracle("pwm_update")
    world_model.requires_grad_(False)
    task, stats = numbers["task"], RunningStats()
    actor_optimizer = torch.optim.Adam(actor.parameters(), lr=5e-4, betas=(0.7, 0.95))
    critic_optimizer = torch.optim.Adam(critic.parameters(), lr=5e-4, betas=(0.7, 0.95))
    done = []
    for noise in numbers["eps"]:
        z = world_model.encode(numbers["obs"][0], task)
        rollout = imagine(world_model, actor, z, task, noise, reward_space="symlog", detach_actor_input=True)
        value = critic.minimum(rollout.latents[-1], task)
        returns = discounted_return(rollout.rewards, value, GAMMA, terminal_discount=GAMMA**17)
        stats.update(RunningStats.moments(-returns))
        statistics = stats.mean.clone(), stats.var.clone(), stats.count.clone()
        loss = -returns.mean() / (stats.var + 1e-5).sqrt().float()
        with torch.no_grad():
            next_values = critic.minimum(rollout.latents[1:], task)
            targets = td_lambda(rollout.rewards.detach(), next_values, GAMMA, lam=0.0)
        actor_optimizer.zero_grad()
        loss.backward()
        norm = nn.utils.clip_grad_norm_(actor.parameters(), 1.0)
        clipped = {name: p.grad.clone() for name, p in actor.named_parameters() if p.numel()}
        actor_optimizer.step()
        constrain_(actor)
        losses, states = [], rollout.latents[:-1].detach().flatten(0, 1)
        for _ in range(8):
            for chosen, wanted in zip(states.chunk(4), targets.flatten().chunk(4), strict=True):
                critic_loss = (critic(chosen, task.repeat(len(chosen) // len(task))) - wanted).square().mean()
                critic_optimizer.zero_grad()
                critic_loss.backward()
                nn.utils.clip_grad_norm_(critic.parameters(), 100.0)
                critic_optimizer.step()
                losses.append(critic_loss.detach())
        steps = torch.stack(losses)
        done.append(
            Update(
                -returns.detach(),
                *statistics,
                loss.detach(),
                norm,
                clipped,
                rollout.latents[:-1].detach(),
                rollout.rewards.detach(),
                next_values,
                targets,
                steps,
                steps.mean(),
                {k: v.clone() for k, v in actor.state_dict().items()},
                {k: v.clone() for k, v in critic.state_dict().items()},
            )
        )
    return done


@pytest.mark.parametrize("index", [0, 1])
def test_every_intermediate(updates, oracle, index, reference_actor, reference_critic):
    numbers, update = oracle("pwm_update"), updates[index]
    forward = {"atol": 1e-4, "rtol": 1e-5}
    after = {"atol": (1e-4, 1e-3)[index], "rtol": 0}

    def entries(prefix):
        return {k.removeprefix(prefix): v for k, v in numbers.items() if k.startswith(prefix)}

    compared = set()

    def compare(name, ours, **tolerance):
        theirs = numbers[f"it{index}/{name}"]
        torch.testing.assert_close(ours.reshape(theirs.shape).to(theirs.dtype), theirs, **tolerance)
        compared.add(f"it{index}/{name}")

    for name in ("neg_return_per_sample", "z_buf", "rew_buf", "next_values", "target_values", "critic_step_losses"):
        compare(name, getattr(update, name), **forward)
    for name in ("ret_rms_mean", "ret_rms_var", "ret_rms_count", "actor_loss", "value_loss"):
        compare(name, getattr(update, name), **forward)
    compare("actor_grad_norm_before_clip", update.actor_grad_norm_before_clip, rtol=1e-4, atol=0)
    groups = {
        "actor_grad_clipped": (reference_actor, update.actor_grad_clipped, forward),
        "actor_after": (reference_actor, update.actor_after, after),
        "critic_after": (reference_critic, update.critic_after, after),
    }
    for group, (rename, ours, tolerance) in groups.items():
        expected = rename(entries(f"it{index}/{group}/"))
        for name, value in expected.items():
            torch.testing.assert_close(ours[name], value, **tolerance)
        compared |= {key for key in numbers if key.startswith(f"it{index}/{group}/")}
    assert compared == {key for key in numbers if key.startswith(f"it{index}/")}


def test_the_clipped_gradient_is_the_one_that_would_have_been_without_clipping_scaled(updates):
    for update in updates:
        total = torch.stack([g.square().sum() for g in update.actor_grad_clipped.values()]).sum().sqrt()
        assert update.actor_grad_norm_before_clip > 10
        assert total.item() == pytest.approx(1.0, rel=1e-4)


def test_learning_rate_schedule(oracle):
    numbers = oracle("pwm_update")
    for kind, first in (("actor", 5e-4), ("model", 3e-4)):
        factor = linear_decay(15000, first, 1e-5)
        ours = [first * factor(int(step)) for step in numbers["lr_schedule_epochs"]]
        assert ours == pytest.approx(numbers[f"lr_schedule_{kind}_max15000"].tolist(), rel=1e-9)
