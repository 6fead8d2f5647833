"""Updates whose losses another function gives, as `CUDAGraphs` puts recordings in their place, on any device."""

from __future__ import annotations

import pytest
import torch
from lightning.pytorch import Callback
from numbered_episodes import TASKS, write_ends
from tuned import schedule

import callbacks
from datamodules import MultitaskDataModule
from datamodules.second_stream import SecondStream
from lit_pwm.models import EnergyLoss, FlowDynamics, NoiseSource


class PlainCalls(callbacks.CUDAGraphs):
    """The callback with a plain call in the place of a recording."""

    device_type = "cpu"

    def __init__(self):
        super().__init__()
        self.calls, self.trained = [], []

    def record(self, function, modules, inputs):  # ty: ignore[incompatible-mutable-override]
        shapes = [tensor.shape for tensor in inputs]
        names = {id(p): name for module in modules for name, p in module.named_parameters()}
        parameters = [p for module in modules for p in module.parameters() if p.numel()]
        trained = [p.requires_grad for p in parameters]
        self.trained.append({names[id(p)] for p in parameters if p.requires_grad})

        def call(*tensors):
            # What a recording would not notice: it runs on tensors of these shapes alone, and without gradient, and
            # gives gradients to the parameters that took some when it was made.
            assert trained == [p.requires_grad for p in parameters]
            self.calls.append(shapes == [tensor.shape for tensor in tensors])
            assert not any(tensor.requires_grad for tensor in tensors)
            return function(*tensors)

        return call


@pytest.fixture(scope="module")
def sampled_file(pretraining, run, tmp_path_factory):
    root = tmp_path_factory.mktemp("sampled")
    run(pretraining(dynamics=sampled), root, updates=3, logger=False).save_checkpoint(root / "sampled.ckpt")
    return root / "sampled.ckpt"


def sampled(*dimensions):
    return FlowDynamics(*dimensions, hidden_dim=20, source=NoiseSource, loss=EnergyLoss)


@pytest.mark.parametrize("job", ["pretraining", "policy"])
def test_replaced_functions_train_the_same_to_the_bit(job, sampled_file, pretraining, policy_learning, run, tmp_path):
    states, graphs = [], PlainCalls()
    for extra in ([], [graphs]):
        is_pretraining = job == "pretraining"
        module = pretraining(dynamics=sampled) if is_pretraining else policy_learning(sampled_file, "flow")
        run(module, tmp_path, extra, updates=5, limit_val_batches=0, logger=False)
        states.append(module.state_dict())
        assert not {"update_loss", "imagined_returns", "critic_loss"} & set(vars(module)), "its own are back"
    for key, value in states[0].items():
        assert torch.equal(states[1][key], value), key
    updates, minibatches = 4, 2 * 4
    assert len(graphs.calls) >= updates * (1 if job == "pretraining" else 1 + minibatches)
    assert all(graphs.calls)


def test_recordings_take_what_is_known_of_ends(pretraining, policy_learning, run, tmp_path):
    """Without it what lies beyond an end would be learned, and imagined."""
    ended = write_ends(
        tmp_path / "ended.h5", [(list(TASKS)[n % 3], 1 + n % 5, n % 4 > 0, n % 4 != 1) for n in range(30)]
    )
    states, graphs = [], PlainCalls()
    for extra in ([], [graphs]):
        module = pretraining(dynamics=sampled)
        data = MultitaskDataModule(ended, horizon=4, batch_size=16, batches_per_epoch=10)
        run(module, tmp_path, extra, updates=5, data=data, limit_val_batches=0, logger=False)
        states.append(module.state_dict())
    for key, value in states[0].items():
        assert torch.equal(states[1][key], value), key
    assert len(graphs.calls) >= 4
    assert all(graphs.calls)
    module.trainer.save_checkpoint(tmp_path / "ended.ckpt")
    states, graphs = [], PlainCalls()
    for extra in ([], [graphs]):
        module = policy_learning(tmp_path / "ended.ckpt")
        second = SecondStream(horizon=4, batch_size=8)
        data = MultitaskDataModule(ended, horizon=4, batch_size=16, batches_per_epoch=10, second=second)
        run(
            module, tmp_path, [schedule(continuation=0), *extra], updates=4, data=data, limit_val_batches=0,
            logger=False,
        )  # fmt: skip
        states.append(module.state_dict())
    for key, value in states[0].items():
        assert torch.equal(states[1][key], value), key
    assert module.world_model.terminating_tasks
    assert all(graphs.calls)
    assert {name.rsplit(".net.", 1)[0] for name in graphs.trained[-1]} == {"heads.continuation"}


@pytest.mark.parametrize("every", [1, 2])
def test_only_the_models_loss_is_recorded_anew_where_other_parts_open(every, sampled_file, policy_learning, run, walks):
    """The update that first trains them is made by the module's own functions, so that its cost can be counted."""
    states, graphs = [], PlainCalls()
    parts = {"reward": 2, "encoder": 5, "dynamics": 6}
    for extra in ([], [graphs]):
        module = policy_learning(sampled_file, "flow")
        second = SecondStream(horizon=4, batch_size=8, every=every)
        data = MultitaskDataModule(walks, horizon=3, batch_size=16, batches_per_epoch=40, second=second)
        ledger, own = callbacks.ComputeLedger(), Own()
        run(
            module, walks.parent / f"graphs-{every}-{len(extra)}", [schedule(**parts), own, *extra, ledger],
            updates=11, data=data, limit_val_batches=0, logger=False,
        )  # fmt: skip
        states.append((module.state_dict(), ledger.totals.flops))
        assert "world_model_loss" not in vars(module), "its own is back"
    for key, value in states[0][0].items():
        assert torch.equal(states[1][0][key], value), key
    assert states[0][1] == states[1][1], "FLOPs of all updates are counted"
    assert all(graphs.calls)
    returns, critic, *losses = graphs.trained
    assert all(name.startswith(("trunk.", "mean.", "log_std", "net.", "field", "actor")) for name in returns | critic)
    found = [{name.removeprefix("heads.").partition(".")[0] for name in loss} for loss in losses]
    assert found == [{"reward"}, {"reward", "encoder", "dynamics"}]
    recorded = [update for update, names in enumerate(own.replaced) if "world_model_loss" in names]
    assert recorded == ([3, 4, 7, 8, 9, 10] if every == 1 else [3, 4, 5, 7, 8, 9, 10])


class Own(Callback):
    """Which of the module's functions an update calls by a recording."""

    def __init__(self):
        self.replaced = []

    def on_train_batch_end(self, trainer, pl_module, *_):
        self.replaced.append(
            {"update_loss", "imagined_returns", "critic_loss", "world_model_loss"} & set(vars(pl_module))
        )
