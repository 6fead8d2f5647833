"""Gradient diagnostics and smoothness in real runs: what they log, and that training does not notice them."""

from __future__ import annotations

import csv
from itertools import product

import pytest
import torch
from lightning.pytorch import Callback
from tuned import schedule

import callbacks
from datamodules import MultitaskDataModule
from datamodules.second_stream import SecondStream
from lit_pwm.errors import LitPWMError
from lit_pwm.models import ChainedMatching, FlowDynamics, NoiseSource


def columns(root):
    """Metric → [(step, value)] of a run's CSV log."""
    found = {}
    with (root / "metrics.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            for name, value in row.items():
                if value and name not in ("step", "epoch"):
                    found.setdefault(name, []).append((int(row["step"]), float(value)))
    return found


def measures():
    return [
        callbacks.GradientDiagnostics(every_n_updates=2, microbatches=4),
        callbacks.DynamicsSmoothness(every_n_updates=1, probes=2),
    ]


class Streams(Callback):
    """Torch's random state after each update."""

    def __init__(self):
        self.states = []

    def on_train_batch_end(self, *_):
        self.states.append(torch.get_rng_state())


def assert_same_training(make, run, root, own=list, data=lambda: None):
    """A run with the measures and one without end in the same weights and random states."""
    ends = []
    for name, extra in (("without", []), ("with", measures())):
        module, streams = make(), Streams()
        trainer = run(module, root / name, [*own(), *extra, streams], updates=5, data=data())
        optimizers = [value for o in trainer.optimizers for s in o.state.values() for value in s.values()]
        ends.append((list(module.state_dict().values()), optimizers, streams.states))
    for ours, theirs in zip(*ends, strict=True):
        assert len(ours) == len(theirs) > 0
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_pre_training_does_not_notice(pretraining, run, tmp_path):
    noisy = lambda *dimensions: FlowDynamics(  # noqa: E731
        *dimensions, hidden_dim=20, source=NoiseSource, loss=ChainedMatching()
    )
    assert_same_training(lambda: pretraining(dynamics=noisy), run, tmp_path)
    logged = columns(tmp_path / "with")
    parts = {name.rsplit("/", 1)[1] for name in logged if name.startswith("diagnostics/gradient_norm/")}
    assert parts == {"encoder", "dynamics", "reward_head", "task_embedding"}
    for name in ("diagnostics/gradient_norm/dynamics", "train/gradient_norm"):
        assert [step for step, _ in logged[name]][-1] in (3, 4)
    # The parts' norms together are the norm that is clipped.
    for at, (step, total) in enumerate(logged["diagnostics/gradient_norm/encoder"]):
        squares = sum(logged[f"diagnostics/gradient_norm/{part}"][at][1] ** 2 for part in parts)
        assert squares**0.5 == pytest.approx(dict(logged["train/gradient_norm"])[step], rel=1e-4)
        assert total > 0
    assert [step for step, _ in logged["diagnostics/dz_dz"]] == [3]
    assert all(value > 0 for name in ("dz_dz", "dz_da") for _, value in logged[f"diagnostics/{name}"])


@pytest.mark.parametrize(("dynamics", "actor"), list(product(["mlp", "flow"], ["mlp", "flow"])))
def test_policy_learning_does_not_notice(dynamics, actor, world_model_files, policy_learning, run, tmp_path):
    assert_same_training(lambda: policy_learning(world_model_files[dynamics], actor), run, tmp_path)
    logged = columns(tmp_path / "with")
    assert [step for step, _ in logged["diagnostics/actor_esnr"]] == [1, 3]
    parts = {name.rsplit("/", 1)[1] for name in logged if "gradient_norm/actor." in name}
    assert parts == (
        {"actor.trunk", "actor.mean", "actor.log_std"} if actor == "mlp" else {"actor.field", "actor.log_std"}
    )
    for at, (step, _) in enumerate(logged["diagnostics/gradient_norm/critic"]):
        squares = sum(logged[f"diagnostics/gradient_norm/{part}"][at][1] ** 2 for part in parts)
        assert squares**0.5 == pytest.approx(dict(logged["train/actor_gradient_norm"])[step], rel=1e-4)
    substeps = {name.rsplit("/", 1)[1] for name in logged if "substep_gradient" in name}
    assert substeps == ({"tau_0.00", "tau_0.50"} if actor == "flow" else set())
    assert "diagnostics/dz_da" in logged


def test_the_microbatches_are_parts_of_the_updates_own_gradient(
    world_model_files, policy_learning, run, tmp_path, monkeypatch
):
    rows, gradients = [], []

    def keep(matrix):
        rows.append(matrix)
        return torch.zeros(())

    class Gradient(Callback):
        def on_before_optimizer_step(self, trainer, module, optimizer):
            parameters = [p for p in module.actor.parameters() if p.numel()]
            gradients.append(torch.cat([p.grad.flatten() for p in parameters]))

    monkeypatch.setattr("callbacks.gradient_diagnostics.expected_snr", keep)
    module = policy_learning(world_model_files["mlp"], "flow", actor_optimizer={"clip_norm": 1e9})
    diagnostics = callbacks.GradientDiagnostics(every_n_updates=1, microbatches=4)
    run(module, tmp_path, [diagnostics, Gradient()], updates=1)
    mean = rows[0].mean(0)
    # The update's own is divided by the deviation of returns that its batch has moved already.
    assert torch.nn.functional.cosine_similarity(mean, gradients[0], dim=0) > 1 - 1e-5
    assert rows[0].shape == (4, sum(p.numel() for p in module.actor.parameters()))
    assert rows[0].std(0).sum() > 0


def test_smoothness_is_measured_as_often_as_asked(pretraining, run, tmp_path):
    smoothness = callbacks.DynamicsSmoothness(every_n_updates=3, probes=1)
    run(pretraining(), tmp_path, [smoothness], updates=8, val_check_interval=2)
    assert [step for step, _ in columns(tmp_path)["diagnostics/dz_dz"]] == [1, 5]


def test_what_makes_no_sense_is_refused():
    with pytest.raises(LitPWMError, match="microbatches 1"):
        callbacks.GradientDiagnostics(microbatches=1)
    with pytest.raises(LitPWMError, match="probes 0"):
        callbacks.DynamicsSmoothness(probes=0)


def test_a_world_model_that_is_trained_beside_a_policy_is_measured_too(
    world_model_files, policy_learning, walks, run, tmp_path
):
    def data():
        second = SecondStream(horizon=4, batch_size=8)
        return MultitaskDataModule(walks, horizon=3, val_horizon=3, batch_size=16, batches_per_epoch=40, second=second)

    make = lambda: policy_learning(world_model_files["mlp"])  # noqa: E731
    assert_same_training(make, run, tmp_path, lambda: [schedule(encoder=0, reward=2)], data)
    logged = columns(tmp_path / "with")
    norms = {key.rsplit("/", 1)[1]: dict(rows) for key, rows in logged.items() if "/gradient_norm/" in key}
    assert {"encoder", "reward_head", "actor.trunk", "critic"} <= norms.keys()
    assert not {"dynamics", "task_embedding"} & norms.keys(), "they are closed"
    assert sorted(norms["encoder"]) == [1, 3]
    assert sorted(norms["reward_head"]) == [3]
    whole = dict(logged["train/world_model_gradient_norm"])
    assert whole[3] ** 2 == pytest.approx(norms["encoder"][3] ** 2 + norms["reward_head"][3] ** 2, rel=1e-4)
    assert whole[1] == pytest.approx(norms["encoder"][1], rel=1e-4)
