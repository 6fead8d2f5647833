"""Losses of several rollouts: the energy score, its groups and its exponent."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch

from lit_pwm.losses import WorldModelObjective
from lit_pwm.models import (
    EnergyLoss,
    FlowDynamics,
    FlowMatching,
    GroupScore,
    LatentTarget,
    NoiseSource,
    WorldModel,
)
from lit_pwm.models.dynamics import consistency_error
from lit_pwm.models.energy_score import energy_error
from lit_pwm.models.layers import simnorm

TASKS = {"one": (6, 3), "two": (4, 2)}


def make_model(dynamics):
    torch.manual_seed(0)
    return WorldModel(TASKS, dynamics, latent_dim=32, encoder_dim=16, reward_dim=16, task_dim=4)


def make_batch(size=6):
    generator = torch.Generator().manual_seed(0)
    return {
        "obs": torch.randn(4, size, 6, generator=generator),
        "action": torch.rand(3, size, 3, generator=generator),
        "reward": torch.rand(3, size, generator=generator),
        "task": torch.arange(size) % 2,
    }


@pytest.mark.parametrize("exponent", [1.0, 0.5, 1.5])
def test_energy_score_is_least_for_samples_distributed_as_the_target(exponent):
    torch.manual_seed(0)
    target = torch.randn(40_000, 4)

    def score(scale, shift=0.0):
        return energy_error(scale * torch.randn(2, 40_000, 4) + shift, target, exponent=exponent).mean().item()

    calibrated = score(1.0)
    assert calibrated < min(score(0.0), score(0.5), score(2.0), score(1.0, 0.5))
    # E‖x − y‖^β of normals in 4 dimensions is 2^β Γ(2 + β/2) / Γ(2); half of it, over √4^β.
    expected = math.gamma(2 + exponent / 2) / math.gamma(2) / 2
    assert calibrated == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize("count", [2, 5])
@pytest.mark.parametrize("exponent", [1.0, 0.5])
def test_energy_score_by_hand(count, exponent):
    samples, target = torch.randn(count, 6, 8), torch.randn(6, 8)

    def distance(a, b):
        return ((a - b).norm(dim=-1) / math.sqrt(8)) ** exponent

    outer = sum(distance(s, target) for s in samples) / count
    pairs = [distance(a, b) for i, a in enumerate(samples) for b in samples[:i]]
    expected = outer - sum(pairs) / len(pairs) / 2
    torch.testing.assert_close(energy_error(samples, target, exponent=exponent), expected)


def test_a_small_exponent_weighs_the_near_misses():
    """Of two rare outcomes and one that is almost certain, blurring the certain one costs more of the score."""
    torch.manual_seed(0)

    def outcomes(blur):
        kicked = (torch.rand(20_000, 1) < 0.1).float() * torch.randn(20_000, 1).sign()
        return kicked + blur * torch.randn(20_000, 1)

    def lost(exponent):
        target = outcomes(0.01)
        sharp, blurred = (
            energy_error(torch.stack([outcomes(blur), outcomes(blur)]), target, exponent=exponent).mean()
            for blur in (0.01, 0.1)
        )
        return ((blurred - sharp) / sharp).item()

    assert lost(0.5) > 1.5 * lost(1.0) > 0


def test_the_slope_of_a_small_exponent_is_finite_where_samples_agree():
    samples = torch.ones(2, 3, 8, requires_grad=True)
    energy_error(samples, torch.ones(3, 8), exponent=0.5).sum().backward()
    assert samples.grad is not None
    assert samples.grad.isfinite().all()


def test_energy_score_of_groups_is_the_mean_of_their_own():
    samples, target = torch.randn(3, 6, 16), torch.randn(6, 16)
    parts = [energy_error(samples[..., part], target[..., part]) for part in (slice(0, 8), slice(8, 16))]
    torch.testing.assert_close(energy_error(samples, target, groups=2), sum(parts) / 2)


def test_earlier_estimates_and_groups_are_part_of_the_energy_score():
    torch.manual_seed(0)
    options = {"hidden_dim": 16, "source": NoiseSource}
    plain = FlowDynamics(16, 1, 1, **options, loss=EnergyLoss(readout_weight=0.0))
    whole = FlowDynamics(16, 1, 1, **options, loss=EnergyLoss(readout_weight=0.25, groups=GroupScore(0.5, 0.5)))
    whole.load_state_dict(plain.state_dict())
    z, zero = simnorm(torch.randn(2, 6, 16)), torch.zeros(2, 6, 1)
    logits = torch.randn(6, 16)
    noise = torch.randn(2, 6, 16)
    target = LatentTarget(simnorm(logits), logits, z[0], noise=noise)
    losses = [dynamics.predict_with_loss(z, zero, zero, target)[1] for dynamics in (plain, whole)]
    end, estimates = whole.solve(whole.start(z, noise), whole.condition(z, zero, zero))

    def groups(samples):
        return 0.5 * scale**0.5 * energy_error(samples, target.latent, groups=2, exponent=0.5)

    first, scale = simnorm(estimates[0]), whole.latent_variance.value.sqrt()
    more = groups(end) + 0.25 * (energy_error(first, target.latent) + groups(first))
    torch.testing.assert_close(losses[0], (scale * energy_error(end, target.latent)).expand(2, -1))
    torch.testing.assert_close(losses[1], losses[0] + scale * more)


def test_a_kind_with_two_samples_rolls_two_out_and_scores_them():
    dynamics = partial(FlowDynamics, hidden_dim=16, source=NoiseSource, loss=EnergyLoss(readout_weight=0.0))
    model, batch = make_model(dynamics), make_batch()
    assert model.dynamics.samples == 2
    noise = torch.randn(6, 3, 2, 32)  # of each slice, at each step, of each sample
    assert WorldModelObjective().noise_shapes(model, 3) == {"dynamics": (3, 2, 32)}
    loss = WorldModelObjective(rho=0.9)(model, batch, {"dynamics": noise})
    z0 = model.encode(batch["obs"][0], batch["task"])
    embedding = model.task_embedding(batch["task"]).expand(2, -1, -1)
    z, total, reward = z0.expand(2, -1, -1), 0.0, 0.0
    targets = model.encode(batch["obs"][1:], batch["task"]).detach()
    scale = targets.flatten(0, 1).var(0, unbiased=False).mean().sqrt()  # of the whole update, at each of its steps
    for t in range(3):
        action = batch["action"][t].expand(2, -1, -1)
        logits = model.reward_logits_embedded(z, action, embedding)
        reward = (
            reward
            + 0.9**t * model.reward_head.two_hot.cross_entropy(logits, batch["reward"][t].expand(2, -1)).mean() / 3
        )
        z = model.dynamics(z, action, embedding, noise[:, t].transpose(0, 1))
        total = total + 0.9**t * (scale * energy_error(z, targets[t])).mean() / 3
    torch.testing.assert_close(loss["consistency"], total)
    torch.testing.assert_close(loss["reward"], reward)
    loss["total"].backward()
    assert all(p.grad is not None for p in model.parameters())


def test_the_energy_score_learns_two_outcomes():
    torch.manual_seed(0)
    dynamics = FlowDynamics(8, 1, 1, hidden_dim=64, source=NoiseSource, loss=EnergyLoss)
    z, zero = simnorm(torch.zeros(2, 256, 8)), torch.zeros(2, 256, 1)
    up = torch.tensor([3.0, 0, 0, 0, 0, 0, 0, -3])
    optimizer = torch.optim.Adam(dynamics.parameters(), lr=3e-3)
    for _ in range(300):
        logits = up * (torch.rand(256, 1).round() * 2 - 1)
        loss = dynamics.predict_with_loss(z, zero, zero, LatentTarget(simnorm(logits), logits, z[0]))[1].mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        first = dynamics(z[0], zero[0], zero[0])[:, 0]
    near = [((first - end).abs() < 0.15).float().mean().item() for end in (simnorm(up)[0], simnorm(-up)[0])]
    assert sum(near) > 0.8
    assert min(near) > 0.3


def test_squared_error_is_a_mean_over_entries():
    a, b = torch.randn(5, 8), torch.randn(5, 8)
    torch.testing.assert_close(consistency_error(a, b), ((a - b) ** 2).sum(-1) / 8)


def test_two_samples_and_flow_matching_from_the_encoders_own_starts_go_together():
    dynamics = partial(
        FlowDynamics,
        hidden_dim=16,
        source=NoiseSource,
        loss=EnergyLoss(matching=FlowMatching(starts="teacher_forced")),
    )
    model = make_model(dynamics)
    WorldModelObjective()(model, make_batch())["total"].backward()
    assert model.dynamics.latent_variance.updates == 1  # once for all steps
