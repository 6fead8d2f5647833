"""The ledger against hand counts, in real runs, resumed and interrupted."""

from __future__ import annotations

import csv
import json
from itertools import pairwise

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.utils.flop_counter import FlopCounterMode

import callbacks
from lit_pwm.flow import Dopri5
from lit_pwm.measures.compute import KnownCosts, cost_of_update, counting
from lit_pwm.models import FlowDynamics
from lit_pwm.models.parity import count_parameters

pytestmark = [
    pytest.mark.filterwarnings("ignore:Using ModelCheckpoint with manual optimization"),
    pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`, callbacks"),
]


def test_flops_of_linear_layers_are_the_hand_count():
    """Forward 2·m·n·B; backward as much for each weight, and for each input but the data, which needs no gradient."""
    widths, batch = (7, 11, 5, 3), 13
    model = torch.nn.Sequential(*(torch.nn.Linear(a, b) for a, b in pairwise(widths)))
    x = torch.randn(batch, widths[0])

    def update():
        model(x).square().mean().backward()
        return "done"

    result, cost = cost_of_update(update, {"model": model})
    products = [2 * a * b * batch for a, b in pairwise(widths)]
    assert result == "done"
    assert cost.flops == sum(products) + sum(products) + sum(products[1:])
    assert cost.nfe == {"model": 1}
    with FlopCounterMode(display=False) as counter:
        update()
    assert counter.get_total_flops() == cost.flops


B, H = 16, 3  # of the runs in conftest


def read(root):
    return json.loads((root / "compute.json").read_text())


def column(root, name):
    with (root / "metrics.csv").open(newline="") as file:
        return [(int(row["step"]), float(row[name])) for row in csv.DictReader(file) if row[name]]


def products_of(module, rows):
    """Forward FLOPs of the linear layers of a network, evaluated on so many rows."""
    return sum(2 * m.weight.numel() * rows for m in module.modules() if isinstance(m, torch.nn.Linear))


def test_a_pre_training_run_is_counted_by_hand_too(pretraining, run, tmp_path):
    module = pretraining()
    ledger = callbacks.ComputeLedger()
    run(module, tmp_path, [ledger], updates=6)
    model, record = module.world_model, read(tmp_path)
    # Inputs of first layers hold the task embedding, which is trained, so that all of them need gradients: 3 products.
    trained = products_of(model.encoder, B) + products_of(model.dynamics, H * B) + products_of(model.reward_head, H * B)
    targets = products_of(model.encoder, H * B)
    # On a CPU the sums in SimNorm are products with ones, of eight by eight, one forward and one backward.
    normed = 16 * model.latent_dim * (2 * (B + H * B) + H * B)
    assert record["flops_per_update"] == 3 * trained + targets + normed
    assert record["flops"] == 6 * record["flops_per_update"]
    assert record["nfe_per_update"] == H
    assert (record["updates"], record["samples"]) == (6, 6 * B)
    assert (
        record["parameters"]["total"]
        == count_parameters(model)
        == sum(record["parameters"][name] for name in ("encoder", "dynamics", "reward_head", "task_embedding"))
    )
    assert record["components"]["dynamics"]["init_args"]["hidden_dim"] == 20
    assert record["seconds"] == pytest.approx(6 * record["seconds_per_update"])
    assert record["samples_per_second"] == pytest.approx(6 * B / record["seconds"])
    assert record["peak_memory_bytes"] > 10**7
    assert (record["device"], record["torch"], record["parity"]) == ("cpu", torch.__version__, None)

    logged = column(tmp_path, "compute/flops")
    assert logged == [(step, (step + 1) * record["flops_per_update"]) for step in range(6)]
    seconds = [value for _, value in column(tmp_path, "compute/seconds")]
    assert sorted(seconds) == seconds
    assert seconds[-1] == pytest.approx(record["seconds"])
    assert "training_step" not in vars(module)


@pytest.mark.parametrize(("kind", "evaluations"), [("mlp", 1), ("flow", 2), ("refinement", 2)])
def test_evaluations_are_those_of_the_fields(kind, evaluations, world_model_files, policy_learning, run, tmp_path):
    module = policy_learning(world_model_files[kind], "mlp" if kind == "mlp" else "flow")
    run(module, tmp_path, [callbacks.ComputeLedger()], updates=2)
    record = read(tmp_path)
    actor = 1 if kind == "mlp" else 2
    assert record["nfe_per_update_by_part"] == {"dynamics": 4 * evaluations, "actor": 4 * actor}
    assert record["nfe_per_update"] == 4 * (evaluations + actor)
    expected = {"world_model": module.world_model, "actor": module.actor, "critic": module.critic}
    assert {name: record["parameters"][name] for name in expected} == {
        k: count_parameters(v) for k, v in expected.items()
    }
    assert record["parameters"]["total"] == sum(count_parameters(part) for part in expected.values())


class Busy(Callback):
    """Computes beside the training, which is not the training's cost."""

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        torch.randn(64, 64) @ torch.randn(64, 64)
        pl_module.world_model.next(torch.rand(2, 16), torch.rand(2, 2), torch.tensor([0, 1]))


@pytest.mark.parametrize("kind", ["mlp", "flow", "refinement"])
def test_the_count_is_that_of_torch(kind, world_model_files, policy_learning, run, tmp_path, monkeypatch):
    run(policy_learning(world_model_files[kind]), tmp_path / "ours", [callbacks.ComputeLedger()], updates=1)

    class TorchCounter(FlopCounterMode):
        flops = property(FlopCounterMode.get_total_flops)

    monkeypatch.setattr("lit_pwm.measures.compute.FlopCounter", lambda: TorchCounter(display=False))
    run(policy_learning(world_model_files[kind]), tmp_path / "torch", [callbacks.ComputeLedger()], updates=1)
    assert read(tmp_path / "ours")["flops"] == read(tmp_path / "torch")["flops"] > 0


def test_weights_and_counts_do_not_depend_on_what_is_beside(pretraining, run, tmp_path):
    states = []
    for name, beside in (("with", [Busy(), callbacks.ComputeLedger(), Busy()]), ("only", [callbacks.ComputeLedger()])):
        module = pretraining("flow")
        run(module, tmp_path / name, beside, updates=3)
        states.append(module.state_dict())
    without = pretraining("flow")
    run(without, tmp_path / "without", updates=3)
    ours, theirs = read(tmp_path / "with"), read(tmp_path / "only")
    assert ours["flops"] == theirs["flops"]
    assert ours["nfe_per_update"] == theirs["nfe_per_update"]
    states.append(without.state_dict())
    assert not (tmp_path / "without" / "compute.json").exists()
    for key, value in states[1].items():
        assert torch.equal(value, states[2][key]), key


def test_a_resumed_run_goes_on_counting(pretraining, run, tmp_path):
    keeper = ModelCheckpoint(dirpath=tmp_path / "kept", filename="{step}", every_n_train_steps=3, save_top_k=-1)
    run(pretraining(), tmp_path / "a", [callbacks.ComputeLedger(), keeper], updates=3, enable_checkpointing=True)
    first = read(tmp_path / "a")
    run(
        pretraining(),
        tmp_path / "b",
        [callbacks.ComputeLedger()],
        updates=5,
        ckpt_path=tmp_path / "kept" / "step=3.ckpt",
    )
    second = read(tmp_path / "b")
    assert (first["updates"], second["updates"]) == (3, 5)
    assert second["flops"] == first["flops"] / 3 * 5
    assert second["samples"] == 5 * B
    assert second["seconds"] > first["seconds"]
    assert [step for step, _ in column(tmp_path / "b", "compute/flops")] == [3, 4]
    assert column(tmp_path / "b", "compute/flops")[0][1] == first["flops"] / 3 * 4


def adaptive(*dimensions):
    dynamics = FlowDynamics(*dimensions, hidden_dim=12, parametrisation="velocity", solver=Dopri5(0.05, 0.05))
    with torch.no_grad():
        for parameter in dynamics.parameters():
            parameter.mul_(40)  # a field that bends
    return dynamics


def test_the_flops_of_a_solver_that_chooses_its_steps_follow_from_its_evaluations():
    torch.manual_seed(0)
    dynamics, costs, settled_after = adaptive(16, 2, 4), KnownCosts(["dynamics"]), None
    updates = []
    for scale in (0.1, 0.1, 30.0, 3.0, 10.0):
        z, action, embedding = torch.rand(4, 2, 8).softmax(-1).flatten(1), scale * torch.randn(4, 2), torch.randn(4, 4)
        updates.append(lambda z=z, a=action, e=embedding: dynamics(z, a, e).square().sum().backward())
    for number, update in enumerate(updates):
        _, cost = cost_of_update(update, {"dynamics": dynamics})
        if not costs.settled:
            costs.add(cost)
            continue
        settled_after = settled_after or number
        with counting({"dynamics": dynamics}) as evaluated:
            update()
        assert costs.of(evaluated) == cost
    assert settled_after == 3, "two numbers of evaluations tell the two unknowns apart"


def test_a_solver_that_chooses_its_steps_is_counted_in_every_update(pretraining, run, tmp_path):
    module, calls = pretraining(dynamics=adaptive, lr=0.05), []

    class Count(Callback):
        def on_train_start(self, trainer, pl_module):
            pl_module.world_model.dynamics.field.register_forward_hook(lambda *_: calls.append(trainer.global_step))

    run(module, tmp_path, [Count(), callbacks.ComputeLedger()], updates=3, limit_val_batches=0)
    assert len({calls.count(update) for update in range(3)}) > 1, "the solver took the same steps in all updates"
    assert read(tmp_path)["nfe_per_update"] == pytest.approx(len(calls) / 3)


def test_an_interrupted_run_leaves_its_record(pretraining, run, tmp_path):
    class Interrupt(Callback):
        def on_train_batch_end(self, trainer, *_):
            if trainer.global_step == 2:
                raise KeyboardInterrupt

    module = pretraining()
    with pytest.raises(SystemExit):
        run(module, tmp_path, [callbacks.ComputeLedger(), Interrupt()])
    assert read(tmp_path)["updates"] == 2
    assert "training_step" not in vars(module)


def test_a_trial_run_leaves_nothing(pretraining, run, tmp_path):
    run(pretraining(), tmp_path, [callbacks.ComputeLedger()], fast_dev_run=2, logger=False)
    assert list(tmp_path.iterdir()) == []
