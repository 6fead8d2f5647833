"""Running variances move once per update, whatever its horizon, by all of its targets on all ranks."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import distributed, multiprocessing

from lit_pwm.losses import WorldModelObjective
from lit_pwm.models import (
    ChainedMatching,
    EndPointError,
    EnergyLoss,
    FlowDynamics,
    FlowMatching,
    NoiseSource,
    WorldModel,
)
from lit_pwm.models.conditioned_field import centred
from lit_pwm.models.layers import simnorm
from lit_pwm.models.running_stats import RunningVariance, update_together

SAMPLED = {"source": NoiseSource, "loss": EnergyLoss}
MATCHED = {"loss": EndPointError(matching=FlowMatching())}


def make_model(options):
    torch.manual_seed(0)
    dynamics = partial(FlowDynamics, hidden_dim=8, **options)
    return WorldModel({"one": (6, 3)}, dynamics, latent_dim=16, encoder_dim=8, reward_dim=8, task_dim=4)


def make_batch(horizon, size=12, seed=0, growth=1.0):
    """Slices whose observations grow from step to step."""
    generator = torch.Generator().manual_seed(seed)
    scale = growth ** torch.arange(horizon + 1)[:, None, None]
    return {
        "obs": scale * torch.randn(horizon + 1, size, 6, generator=generator),
        "action": torch.rand(horizon, size, 3, generator=generator),
        "reward": torch.rand(horizon, size, generator=generator),
        "task": torch.zeros(size, dtype=torch.int64),
    }


def pooled_variances(model, batch):
    logits = model.encode_logits(batch["obs"][1:], batch["task"]).flatten(0, 1).detach()
    return [x.var(0, unbiased=False).mean() for x in (simnorm(logits), centred(logits))]


def variances(model):
    return model.dynamics.latent_variance, model.dynamics.state_variance


@pytest.mark.parametrize("options", [SAMPLED, MATCHED, {"loss": ChainedMatching(end_weight=1.0)}])
@pytest.mark.parametrize("horizon", [1, 3, 16])
def test_one_update_is_one_move_by_the_pooled_targets(options, horizon):
    model, first, second = make_model(options), make_batch(horizon), make_batch(horizon, seed=1, growth=1.3)
    for moves, batch in enumerate((first, second), start=1):
        WorldModelObjective()(model, batch)
        assert [int(stats.updates) for stats in variances(model)] == [moves] * 2
    for stats, start, new in zip(
        variances(model), pooled_variances(model, first), pooled_variances(model, second), strict=True
    ):
        torch.testing.assert_close(stats.value, 0.99 * start + 0.01 * new)
        assert abs(start - new) > 0.001 * start  # else a move could not be seen


def test_early_and_late_steps_weigh_the_same():
    """The same targets in reverse order move it by as much."""
    values = []
    for forward in (True, False):
        model, batch = make_model(SAMPLED), make_batch(16, growth=1.2)
        first, *later = batch["obs"]
        batch["obs"] = torch.stack([first, *(later if forward else reversed(later))])
        WorldModelObjective()(model, make_batch(16, seed=1))
        WorldModelObjective()(model, batch)
        values.append(model.dynamics.latent_variance.value)
    torch.testing.assert_close(*values, rtol=1e-5, atol=0)


def test_held_out_data_move_nothing():
    model = make_model(SAMPLED)
    WorldModelObjective()(model, make_batch(4))
    before = [stats.value.clone() for stats in variances(model)]
    WorldModelObjective()(model.eval(), make_batch(4, seed=1))
    assert [stats.value for stats in variances(model)] == before


def test_targets_of_any_leading_shape_and_precision_are_pooled():
    x = torch.randn(5, 7, 3)
    one, other, double = RunningVariance(), RunningVariance(), RunningVariance().double()
    one.update(x)
    other.update(x.flatten(0, 1))
    double.update(x.double())
    torch.testing.assert_close(one.value, other.value)
    torch.testing.assert_close(one.value, x.flatten(0, 1).var(0, unbiased=False).mean())
    assert double.value.dtype == torch.float64
    torch.testing.assert_close(double.value.float(), one.value)
    half = RunningVariance()
    half.update(x.bfloat16())
    torch.testing.assert_close(half.value, x.bfloat16().float().flatten(0, 1).var(0, unbiased=False).mean())


def _rank(rank, address, horizon, results):
    """One of two processes, which has half of each batch; says what its variances are and how often it reduced."""
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=address, rank=rank, world_size=2)
    reductions, all_reduce = [], distributed.all_reduce
    distributed.all_reduce = lambda x, *rest, **more: (reductions.append(x.shape), all_reduce(x, *rest, **more))[1]
    model = make_model(SAMPLED)
    for seed in range(3):
        WorldModelObjective()(model, halves(make_batch(horizon, seed=seed, growth=1.2))[rank])
    results[rank] = [float(stats.value) for stats in variances(model)], len(reductions)
    distributed.destroy_process_group()


def halves(batch):
    return [{k: v[..., r::2, :] if k in ("obs", "action") else v[..., r::2] for k, v in batch.items()} for r in (0, 1)]


@pytest.mark.slow
def test_two_ranks_agree_with_one_process_and_reduce_once_an_update(tmp_path):
    horizon, model = 4, make_model(SAMPLED)
    for seed in range(3):
        WorldModelObjective()(model, make_batch(horizon, seed=seed, growth=1.2))
    with multiprocessing.get_context("spawn").Manager() as manager:
        results = manager.dict()
        multiprocessing.spawn(_rank, (f"file://{tmp_path / 'meeting'}", horizon, results), nprocs=2)
        (first, reductions), (second, _) = results[0], results[1]
    assert first == second
    assert first == pytest.approx([float(stats.value) for stats in variances(model)], rel=1e-5)
    assert reductions == 3


def test_variances_of_several_batches_move_by_their_own():
    many = RunningVariance(rate=0.25), RunningVariance(rate=0.5)
    first, second = torch.randn(64, 3), 2 * torch.randn(64, 3)
    update_together(many, (first, second))
    update_together(many, (second, first))
    a, b = (x.var(0, unbiased=False).mean() for x in (first, second))
    torch.testing.assert_close(many[0].value, 0.75 * a + 0.25 * b)
    torch.testing.assert_close(many[1].value, 0.5 * b + 0.5 * a)
