"""Every supported precision runs every component and every metric; the others are refused before anything is built."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import support
import torch
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.plugins.precision import HalfPrecision, MixedPrecision, Precision

import callbacks
from benchmarks.encoder_steadying import SteadiedObjective
from datamodules import MultitaskDataModule
from lit_pwm import PolicyLearning, WorldModelPretraining
from lit_pwm.checkpoints import load_policy
from lit_pwm.errors import LitPWMError
from lit_pwm.flow import Dopri5, FixedStep
from lit_pwm.measures.open_loop import OpenLoopError
from lit_pwm.models import (
    ChainedMatching,
    CriticEnsemble,
    EndPointError,
    EnergyLoss,
    FlowActor,
    FlowDynamics,
    FlowMatching,
    GroupScore,
    LatentSource,
    MLPActor,
    MLPDynamics,
    NoiseSource,
    RefinementDynamics,
    RunningStats,
    WorldModel,
)
from lit_pwm.models.accumulation import accumulation_dtype
from lit_pwm.models.two_hot import TwoHot
from lit_pwm.updates.precision import SUPPORTED

pytestmark = [
    pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`, callbacks"),
    pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no `val_dataloader`"),
]

SAMPLED = {"source": NoiseSource, "loss": EnergyLoss}
DYNAMICS = {
    "mlp": partial(MLPDynamics),
    "mlp-plain": partial(MLPDynamics, rescale_inputs=False),
    "refinement": partial(RefinementDynamics),
    "refinement-plain": partial(RefinementDynamics, rescale_inputs=False),
    "flow": partial(FlowDynamics),
    "flow-midpoint": partial(FlowDynamics, solver=FixedStep("midpoint")),
    "flow-rk4-velocity": partial(FlowDynamics, solver=FixedStep("rk4"), parametrisation="velocity"),
    "flow-dopri5": partial(FlowDynamics, solver=Dopri5(1e-2, 1e-2), parametrisation="velocity"),
    "flow-adjoint": partial(
        FlowDynamics, adjoint=True, parametrisation="velocity", loss=EndPointError(readout_weight=0.0)
    ),
    "flow-residual": partial(FlowDynamics, parametrisation="residual"),
    "flow-latent-source": partial(FlowDynamics, source=LatentSource, rescale_inputs=False),
    "flow-simplex": partial(FlowDynamics, space="latent", source=LatentSource),
    "flow-simplex-zero": partial(FlowDynamics, space="latent"),
    "matching": partial(
        FlowDynamics, source=LatentSource, loss=EndPointError(matching=FlowMatching(starts="teacher_forced"))
    ),
    "matching-simplex": partial(FlowDynamics, space="latent", loss=EndPointError(matching=FlowMatching(tau="early"))),
    "matching-estimate": partial(FlowDynamics, source=NoiseSource, loss=ChainedMatching(tau="logit_normal")),
    "sampled": partial(FlowDynamics, **SAMPLED),
    "sampled-few": partial(FlowDynamics, source=partial(NoiseSource, dim=3, power=3.0), loss=EnergyLoss(samples=3)),
    "sampled-groups": partial(FlowDynamics, source=NoiseSource, loss=EnergyLoss(groups=GroupScore())),
    "sampled-simplex": partial(
        FlowDynamics,
        space="latent",
        source=partial(NoiseSource, dim=2),
        loss=EnergyLoss(matching=FlowMatching(weight=0.5)),
    ),
    "sampled-midpoint": partial(FlowDynamics, **SAMPLED, solver=FixedStep("midpoint", substeps=1)),
}
ACTORS = {
    "mlp": partial(MLPActor),
    "flow": partial(FlowActor),
    "flow-gated": partial(FlowActor, form="gated", solver=FixedStep("heun")),
    "flow-dopri5": partial(FlowActor, solver=Dopri5(1e-2, 1e-2)),
}
FREQUENT = ("mlp", "refinement", "flow", "matching", "sampled-few")
WIDTHS = {"latent_dim": 16, "encoder_dim": 16, "reward_dim": 16, "task_dim": 4}


def kinds(of):
    """Those that most runs use, and the others with the long tests."""
    return [kind if kind in FREQUENT else pytest.param(kind, marks=pytest.mark.long) for kind in of]


def pretraining(dynamics, **options):
    steadied = SteadiedObjective(target_encoder_rate=0.5, sigreg_coef=0.1)
    return WorldModelPretraining(
        **{"dynamics": partial(dynamics, hidden_dim=16), **WIDTHS, "objective": steadied, **options}
    )


def data_of(store):
    return MultitaskDataModule(store, horizon=3, val_horizon=4, batch_size=8, batches_per_epoch=10, val_batches=2)


def fit(module, store, precision, root, updates=2):
    """A run with every callback that measures."""
    measures = [callbacks.DynamicsSmoothness(1, 2), callbacks.ComputeLedger(), callbacks.GradientDiagnostics(1, 2)]
    if isinstance(module, WorldModelPretraining):
        measures.append(callbacks.DecodedErrors(steps=(1, 4)))
    return support.fit(
        module, data_of(store), updates, val_check_interval=updates, check_val_every_n_epoch=None, precision=precision,
        callbacks=measures, logger=CSVLogger(root), default_root_dir=root,
    )  # fmt: skip


@pytest.mark.parametrize("precision", SUPPORTED)
@pytest.mark.parametrize("kind", kinds(DYNAMICS))
def test_every_dynamics_and_every_metric_of_it(linear_store, tmp_path, kind, precision):
    trainer = fit(pretraining(DYNAMICS[kind]), linear_store, precision, tmp_path)
    found = {name: float(value) for name, value in trainer.callback_metrics.items()}
    assert np.isfinite(list(found.values())).all(), found
    assert {"train/loss", "val/latent_error_4", "val/decoded_error_4", "diagnostics/dz_dz"} <= set(found)
    wanted = torch.float64 if precision == "64-true" else torch.float32
    assert {p.dtype for p in trainer.lightning_module.parameters()} == {wanted}
    assert trainer.lightning_module.open_loop.z.dtype == torch.float64


@pytest.fixture(scope="module")
def world_models(linear_store, tmp_path_factory):
    folder, files = tmp_path_factory.mktemp("world_models"), {}
    for kind in ("mlp", "sampled-few"):
        files[kind] = folder / f"{kind}.ckpt"
        fit(pretraining(DYNAMICS[kind]), linear_store, "32-true", folder).save_checkpoint(files[kind])
    return files


def policy_learning(world_model, actor, **options):
    parts = {
        "critic": partial(CriticEnsemble, hidden_dims=(8,), task_dim=4),
        "horizon": 3,
        "critic_optimizer": {"passes": 1, "minibatches": 3},
    }
    actor = partial(actor, hidden_dims=(12, 8), task_dim=4)
    return PolicyLearning(str(world_model), actor=actor, actor_optimizer={"average_rate": 0.5}, **parts, **options)


@pytest.mark.parametrize("precision", SUPPORTED)
@pytest.mark.parametrize("dynamics", [pytest.param("mlp", marks=pytest.mark.long), "sampled-few"])
@pytest.mark.parametrize("kind", kinds(ACTORS))
def test_every_actor_and_every_metric_of_it(linear_store, world_models, tmp_path, kind, dynamics, precision):
    module = policy_learning(world_models[dynamics], ACTORS[kind])
    trainer = fit(module, linear_store, precision, tmp_path)
    found = {name: float(value) for name, value in trainer.callback_metrics.items()}
    assert np.isfinite(list(found.values())).all(), found
    assert {"train/actor_loss", "train/return_std", "val/imagined_reward", "diagnostics/dz_da"} <= set(found)
    # What is evaluated in training acts like what is evaluated from the checkpoint, to the bit.
    trainer.save_checkpoint(tmp_path / "policy.ckpt")
    policy, obs = load_policy(tmp_path / "policy.ckpt"), np.linspace(-1, 1, 8, dtype=np.float32).reshape(2, 4)
    np.testing.assert_array_equal(module.policy().act(obs, "spin"), policy.act(obs, "spin"))


class Quantised(Precision):
    """A plugin of somebody else's that calls itself ordinary."""


@pytest.mark.parametrize(
    ("plugin", "reason"),
    [
        (MixedPrecision("16-mixed", "cpu"), r"'16-mixed', under which gradients are clipped before.*'bf16-mixed'"),
        (HalfPrecision("16-true"), r"'16-true', under which weights.*a reward of 0.9 is read as 0.824"),
        (HalfPrecision("bf16-true"), r"'bf16-true', under which weights"),
        (Quantised(), r"'Quantised', under which no component"),
    ],
)
def test_other_precisions_are_refused_by_name_before_anything_is_built(linear_store, world_models, plugin, reason):
    for module in (pretraining(MLPDynamics), policy_learning(world_models["mlp"], MLPActor)):
        for verb in ("fit", "validate", "test"):
            trainer = support.quiet_trainer(1, plugins=[plugin])
            with pytest.raises(LitPWMError, match=reason) as caught:
                getattr(trainer, verb)(module, datamodule=data_of(linear_store))
            assert caught.value.exit_code == 2
            assert not module.is_built


@pytest.mark.parametrize("cast", ["half", "bfloat16", "double", "float"])
def test_reward_bins_are_never_of_half_precision(cast):
    bins = getattr(TwoHot(), cast)()
    assert bins.bins.dtype == (torch.float64 if cast == "double" else torch.float32)
    rewards = torch.tensor([0.9, 0.01, -3.3])
    probabilities = bins.encode(rewards.to(torch.float64 if cast == "double" else torch.float32))
    torch.testing.assert_close(bins.decode(probabilities.log().clamp_min(-80)).float(), rewards, atol=1e-5, rtol=1e-4)
    world_model = getattr(WorldModel({"a": (3, 1)}, **WIDTHS), cast)()
    assert world_model.reward_head.two_hot.bins.dtype == bins.bins.dtype


def test_bins_and_cross_entropy_under_autocast_are_those_of_single_precision():
    two_hot, logits = TwoHot(), torch.randn(50, 101)
    rewards = torch.linspace(-4, 4, 50)
    plain = two_hot.cross_entropy(logits.bfloat16().float(), rewards)
    with torch.autocast("cpu", torch.bfloat16):
        lowered = two_hot.cross_entropy(logits.bfloat16(), rewards)
        decoded = two_hot.decode(logits.bfloat16())
    torch.testing.assert_close(lowered, plain, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(decoded, two_hot.decode(logits.bfloat16().float()), atol=1e-4, rtol=1e-4)


def test_sums_are_kept_in_single_precision_where_a_device_has_no_doubles():
    assert accumulation_dtype(torch.device("mps")) == accumulation_dtype("mps:0") == torch.float32
    assert accumulation_dtype("cpu") == accumulation_dtype("cuda:1") == torch.float64
    stats, x = RunningStats(torch.float32), torch.randn(40)
    stats.update(RunningStats.moments(x).float())
    assert {buffer.dtype for buffer in stats.buffers()} == {torch.float32}
    assert stats.var.item() == pytest.approx(x.var(unbiased=False).item(), rel=1e-4)


def test_metrics_in_single_precision_give_what_they_give_in_double():
    from lit_pwm.measures.decoded_error import DecodedError

    model, found = WorldModel({"a": (3, 1), "b": (4, 2)}, **WIDTHS), []
    batch = {"obs": torch.randn(5, 40, 4), "action": torch.rand(4, 40, 2), "reward": torch.rand(4, 40)}
    batch["task"] = torch.arange(40) % 2
    for dtype in (torch.float64, torch.float32):
        open_loop = OpenLoopError(model.task_names, 16, (1, 4), dtype)
        decoded = DecodedError(model.task_names, 16, 4, (1, 4), dtype=dtype)
        for metric in (open_loop, decoded):
            metric.update(model, batch)
            assert {state.dtype for name, state in metric.metric_state.items()} == {dtype}
        found.append({name: float(value) for name, value in (open_loop.compute() | decoded.compute()).items()})
    assert found[1] == pytest.approx(found[0], rel=1e-3, abs=1e-5)
