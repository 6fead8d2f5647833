"""On a GPU: the CPU's numbers, callbacks that measure the card, checkpoints that another machine reads."""

from __future__ import annotations

import csv
import json
import math
from functools import partial

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

import callbacks
from benchmarks.encoder_steadying import SteadiedObjective
from lit_pwm import PolicyLearning, WorldModelPretraining
from lit_pwm.checkpoints import load_policy, load_world_model
from lit_pwm.errors import LitPWMError, NonFiniteLossError
from lit_pwm.flow import Dopri5
from lit_pwm.measures.compute import Stopwatch
from lit_pwm.models import EnergyLoss, FlowDynamics, NoiseSource

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
    pytest.mark.filterwarnings("ignore:Using ModelCheckpoint with manual optimization"),
    pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`, callbacks"),
]
DYNAMICS, ACTORS = ("mlp", "flow", "refinement"), ("mlp", "flow")


@pytest.fixture(autouse=True)
def no_process_group_left():
    """Or the next test would be one rank of the last one's."""
    yield
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def logged(root, name):
    with (root / "metrics.csv").open(newline="") as file:
        return [float(row[name]) for row in csv.DictReader(file) if row.get(name)]


def measures():
    return [
        callbacks.ComputeLedger(),
        callbacks.GradientDiagnostics(every_n_updates=2, microbatches=4),
        callbacks.DynamicsSmoothness(every_n_updates=2, probes=2),
    ]


@pytest.mark.parametrize("kind", DYNAMICS)
def test_pre_training_gives_the_losses_of_the_cpu(kind, pretraining, run, tmp_path):
    for accelerator in ("cpu", "gpu"):
        run(pretraining(kind), tmp_path / accelerator, accelerator=accelerator)
    first, second = (logged(tmp_path / accelerator, "train/loss") for accelerator in ("cpu", "gpu"))
    assert len(first) == 6
    assert second == pytest.approx(first, rel=1e-3)


@pytest.mark.parametrize("kind", DYNAMICS)
def test_bfloat16_gives_nearly_the_losses_of_full_precision(kind, pretraining, run, tmp_path):
    for precision in ("32-true", "bf16-mixed"):
        run(pretraining(kind), tmp_path / precision, accelerator="gpu", precision=precision)
    first, second = (logged(tmp_path / precision, "train/loss") for precision in ("32-true", "bf16-mixed"))
    assert second == pytest.approx(first, rel=0.02)


def calls_of(monkeypatch, owner, name):
    """Counts how often Python calls a function of `owner`."""
    calls, own = [], getattr(owner, name)

    def counted(*arguments, **options):
        calls.append(name)
        return own(*arguments, **options)

    monkeypatch.setattr(owner, name, counted)
    return calls


def assert_same_weights(first, second, atol=1e-5):
    ours, theirs = first.state_dict(), second.state_dict()
    for name, value in ours.items():
        torch.testing.assert_close(value, theirs[name], rtol=1e-3, atol=atol, msg=lambda m, name=name: f"{name}: {m}")


STEADIED = partial(SteadiedObjective, target_encoder_rate=0.1, sigreg_coef=0.1)


@pytest.mark.parametrize(
    ("model", "options"),
    [({}, {}), ({"objective": STEADIED}, {}), ({}, {"precision": "bf16-mixed"}),
     ({}, {"strategy": "ddp"})],
    ids=["", "steadied", "bf16", "ddp"],
)  # fmt: skip
@pytest.mark.parametrize("kind", DYNAMICS)
def test_graphs_pre_train_what_updates_without_them_do(kind, model, options, pretraining, run, tmp_path, monkeypatch):
    settings = {"accelerator": "gpu", "updates": 10, "limit_val_batches": 0, **options}
    plain = run(pretraining(kind, **model), tmp_path / "plain", measures(), **settings)
    calls = calls_of(monkeypatch, WorldModelPretraining, "update_loss")
    graphs = run(pretraining(kind, **model), tmp_path / "graphs", [*measures(), callbacks.CUDAGraphs()], **settings)
    assert len(calls) < 7  # the first update and the recording
    assert_same_weights(plain.lightning_module, graphs.lightning_module, 1e-3 if "precision" in options else 1e-5)
    first, second = (json.loads((tmp_path / name / "compute.json").read_text()) for name in ("plain", "graphs"))
    for name in ("flops", "nfe_per_update", "updates"):
        assert first[name] == second[name] > 0
    for name in ("train/loss", "train/consistency", "train/gradient_norm", "diagnostics/gradient_norm/encoder"):
        first, second = (logged(tmp_path / folder, name) for folder in ("plain", "graphs"))
        assert len(first) == (5 if name.startswith("diagnostics") else 10)
        # In half precision a small difference between two runs grows, most of all in gradients.
        rounding = (0.2 if "norm" in name else 0.02) if "precision" in options else 1e-3
        assert second == pytest.approx(first, rel=rounding)
    assert "update_loss" not in vars(graphs.lightning_module)


@pytest.mark.parametrize("actor", ACTORS)
@pytest.mark.parametrize("kind", DYNAMICS)
def test_graphs_train_the_policies_that_updates_without_them_do(
    kind, actor, world_model_files, policy_learning, run, tmp_path, monkeypatch
):
    settings = {"accelerator": "gpu", "updates": 10, "limit_val_batches": 0, "batch_size": 16}
    options = {
        "actor_optimizer": {"average_rate": 0.1},
        "critic_optimizer": {"target_rate": 0.5, "passes": 2, "minibatches": 3},  # of two sizes
    }
    plain = run(policy_learning(world_model_files[kind], actor, **options), tmp_path / "plain", measures(), **settings)
    calls = calls_of(monkeypatch, PolicyLearning, "imagined_returns")
    graphs = run(
        policy_learning(world_model_files[kind], actor, **options),
        tmp_path / "graphs", [callbacks.ComputeLedger(), callbacks.CUDAGraphs()], **settings,
    )  # fmt: skip
    assert len(calls) < 7
    assert_same_weights(plain.lightning_module, graphs.lightning_module)
    for name in ("train/actor_loss", "train/critic_loss", "train/return_std", "train/imagined_reward"):
        first, second = (logged(tmp_path / folder, name) for folder in ("plain", "graphs"))
        assert second == pytest.approx(first, rel=1e-3, abs=1e-5)
    measured = run(
        policy_learning(world_model_files[kind], actor, **options),
        tmp_path / "measured", [*measures(), callbacks.CUDAGraphs()], **settings,
    )  # fmt: skip
    assert_same_weights(graphs.lightning_module, measured.lightning_module)
    for name in ("diagnostics/actor_esnr", "diagnostics/gradient_norm/critic"):
        first, second = (logged(tmp_path / folder, name) for folder in ("plain", "measured"))
        assert second == pytest.approx(first, rel=1e-2)


def test_graphs_pre_train_sampled_flows(pretraining, run, tmp_path):
    module = pretraining(dynamics=partial(FlowDynamics, hidden_dim=20, source=NoiseSource, loss=EnergyLoss), lr=3e-3)
    run(module, tmp_path, [callbacks.CUDAGraphs()], accelerator="gpu", updates=40, limit_val_batches=0)
    losses = logged(tmp_path, "train/consistency")
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])
    assert int(module.world_model.dynamics.latent_variance.updates) == 40  # neither recording nor replay miscounts


class Spoil(pl.Callback):
    """Spoils the observations of one batch, and keeps what was there before it."""

    def __init__(self, update):
        self.update = update

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_step == self.update:
            self.before = moved_by(trainer)
            batch["obs"].mul_(torch.nan)


def moved_by(trainer):
    module = {f"module.{name}": value for name, value in trainer.lightning_module.state_dict().items()}
    for index, optimizer in enumerate(trainer.optimizers):
        for number, state in optimizer.state_dict()["state"].items():
            module |= {f"optimizer {index}, {number}.{name}": value for name, value in state.items()}
    module["cuda generator"] = torch.cuda.get_rng_state()
    return {name: value.clone() for name, value in module.items()}


@pytest.mark.parametrize("graphs", [False, True], ids=["", "graphs"])
@pytest.mark.parametrize("kind", ["mlp", "sampled", "policy"])
def test_an_update_that_is_not_finite_leaves_everything_as_it_was(
    kind, graphs, pretraining, policy_learning, world_model_files, run, tmp_path
):
    if kind == "policy":
        module = policy_learning(
            world_model_files["flow"],
            "flow",
            actor_optimizer={"average_rate": 0.1},
            critic_optimizer={"target_rate": 0.5, "passes": 2},
        )
    elif kind == "sampled":
        module = pretraining(dynamics=partial(FlowDynamics, hidden_dim=20, source=NoiseSource, loss=EnergyLoss))
    else:
        module = pretraining(kind)
    spoil, guard = Spoil(3), callbacks.NonFiniteGuard()
    extra = [callbacks.CUDAGraphs()] if graphs else []
    with pytest.raises(NonFiniteLossError, match=r"at update 3; the update was undone"):
        run(module, tmp_path, [*extra, spoil, guard], accelerator="gpu", limit_val_batches=0)
    found = torch.load(tmp_path / "last_good.ckpt", weights_only=True)
    assert found["global_step"] == 3
    for name, value in found["state_dict"].items():
        assert torch.equal(value.cpu(), spoil.before[f"module.{name}"].cpu()), name
        assert value.isfinite().all(), name
    for index, optimizer in enumerate(found["optimizer_states"]):
        for number, state in optimizer["state"].items():
            for name, value in state.items():
                assert torch.equal(value.cpu(), spoil.before[f"optimizer {index}, {number}.{name}"].cpu()), name
    if kind != "sampled" or not graphs:  # a recording keeps an offset of its own
        assert torch.equal(torch.cuda.get_rng_state(), spoil.before["cuda generator"])


def test_graphs_do_not_integrate_adaptively(pretraining, run, tmp_path):
    module = pretraining(dynamics=partial(FlowDynamics, hidden_dim=20, parametrisation="velocity", solver=Dopri5))
    with pytest.raises(LitPWMError, match="FlowDynamics integrates by dopri5"):
        run(module, tmp_path, [callbacks.CUDAGraphs()], accelerator="gpu")


@pytest.mark.parametrize("kind", DYNAMICS)
def test_everything_that_measures_runs_in_pre_training(kind, pretraining, run, tmp_path):
    trainer = run(pretraining(kind), tmp_path, [*measures(), callbacks.DecodedErrors()], accelerator="gpu")
    record = json.loads((tmp_path / "compute.json").read_text())
    assert record["device"] == torch.cuda.get_device_name()
    assert record["flops_per_update"] > 0
    assert 0 < record["seconds"] < 60
    assert 10**5 < record["peak_memory_bytes"] < 10**9
    with (tmp_path / "metrics.csv").open(newline="") as file:
        columns = set(next(csv.reader(file)))
    assert any(name.startswith("val/decoded_error_") for name in columns)
    for name in columns - {"step", "epoch"}:
        assert all(math.isfinite(value) for value in logged(tmp_path, name)), name
    trainer.save_checkpoint(tmp_path / "model.ckpt")
    there, here = trainer.lightning_module.world_model.eval(), load_world_model(tmp_path / "model.ckpt").eval()
    obs, action, task = torch.randn(7, 5), torch.rand(7, 2), torch.ones(7, dtype=torch.int64)

    def predict(model, device):
        z = model.encode(obs.to(device), task.to(device))
        return model.next(z, action.to(device), task.to(device)).detach().cpu()

    torch.testing.assert_close(predict(there.cuda(), "cuda"), predict(here, "cpu"), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("actor", ACTORS)
@pytest.mark.parametrize("kind", DYNAMICS)
def test_policies_are_trained_and_measured_in_every_cell(
    kind, actor, world_model_files, policy_learning, run, tmp_path
):
    module = policy_learning(world_model_files[kind], actor)
    trainer = run(module, tmp_path, measures(), accelerator="gpu", batch_size=16)
    losses = logged(tmp_path, "train/actor_loss")
    assert losses
    assert all(map(math.isfinite, losses))
    assert json.loads((tmp_path / "compute.json").read_text())["components"].keys() == {"dynamics", "actor"}
    trainer.save_checkpoint(tmp_path / "policy.ckpt")
    assert load_policy(tmp_path / "policy.ckpt") is not None


def test_a_resumed_run_is_the_uninterrupted_one(pretraining, run, tmp_path):
    def keep(root):
        return ModelCheckpoint(dirpath=root, filename="{step}", every_n_train_steps=3, save_top_k=-1)

    options = {"accelerator": "gpu", "enable_checkpointing": True}
    whole = run(pretraining("flow"), tmp_path / "whole", [keep(tmp_path / "whole"), callbacks.RNGState()], **options)
    part = tmp_path / "whole" / "step=3.ckpt"
    resumed = run(pretraining("flow"), tmp_path / "part", [callbacks.RNGState()], ckpt_path=part, **options)
    assert resumed.global_step == whole.global_step == 6
    ours, theirs = resumed.lightning_module.state_dict(), whole.lightning_module.state_dict()
    for name, value in ours.items():
        torch.testing.assert_close(value, theirs[name], rtol=1e-4, atol=1e-6, msg=lambda m, name=name: f"{name}: {m}")


def test_the_stopwatch_waits_for_the_kernels():
    watch = Stopwatch(torch.device("cuda"))
    x = torch.randn(8192, 8192, device="cuda")
    (x @ x).sum().item()
    for weight in (1, 3):
        watch.start()
        y = x @ x
        watch.stop(weight)
    seconds = watch.take()
    assert watch.take() == 0
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    for _ in range(4):
        y = y @ x
    end.record()
    end.synchronize()
    assert seconds == pytest.approx(begin.elapsed_time(end) / 1000, rel=0.5)
