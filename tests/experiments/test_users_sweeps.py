"""The shipped sweeps of precision, horizons and the like: their grids, and their tiny variants run from end to end."""

import json
from pathlib import Path

import pytest
import torch

from lit_pwm.checkpoints.native import read_checkpoint
from lit_pwm.cli.main import run
from lit_pwm.experiments.sweep import cells_of, read_sweep

GRIDS = {
    "precision": {"world_model_substeps": ["2", "4", "8"], "policy_substeps": ["2", "4"]},
    "horizon": {"horizon": ["16", "3", "8"]},
    "finetuning": {"training": ["frozen", "finetuned", "scratch"], "policy": ["mlp", "flow2", "flow4"]},
    "epochs": {
        "epochs": ["15k", "50k", "100k", "150k"],
        "world_model": ["mlp", "flow"],
        "policy": ["mlp", "flow"],
    },
}
"""Sweep → axis → labels, beside tasks and seeds."""


def shipped(name):
    return read_sweep(f"configs/sweeps/{name}.yaml")


@pytest.mark.parametrize("name", GRIDS)
def test_the_grid_and_its_tiny_variant(name):
    whole, tiny = shipped(name), shipped(f"{name}_tiny")
    assert {axis: list(labels) for axis, labels in whole.axes.items() if axis not in ("task", "seed")} == GRIDS[name]
    assert list(whole.axes) == list(tiny.axes)
    for axis, labels in tiny.axes.items():
        assert len(labels) == (1 if axis in ("task", "seed") else 2)
        assert axis in ("task", "epochs") or set(labels) <= set(whole.axes[axis])
    # The same commands, but for sizes.
    assert {stage: plan.over for stage, plan in tiny.stages.items() if stage != "data"} == {
        stage: plan.over for stage, plan in whole.stages.items()
    }
    for stage, plan in whole.stages.items():
        given, small = ({word for word in one.run if word.startswith("--")} for one in (plan, tiny.stages[stage]))
        assert given == small, stage


@pytest.fixture
def swept(tmp_path, monkeypatch):
    """Runs a shipped sweep as its file says; returns its folder and the checkpoint that each policy ended with."""

    def sweep(name):
        monkeypatch.chdir(tmp_path)
        assert run(["sweep", f"configs/sweeps/{name}.yaml"]) == 0, _logs(tmp_path)
        out, policies = tmp_path / "runs" / name, {}
        for key, cell in cells_of(shipped(name)).items():
            assert json.loads((out / key / "cell.json").read_text())["status"] == "finished"
            if cell.stage == "policy":
                (path,) = (out / key).glob("**/checkpoints/last.ckpt")
                policies[tuple(label for axis, label in cell.labels.items() if axis not in ("task", "seed"))] = (
                    read_checkpoint(path)
                )
            elif cell.stage in ("best", "last"):
                found = json.loads((out / key / "returns.json").read_text())["tasks"]
                assert len(found["cartpole-balance"]["returns"]) == 1
        assert len(list((out / "records").iterdir())) == len(policies)
        return out, policies

    return sweep


def _logs(folder: Path) -> str:
    return "\n".join(f"{path}: {path.read_text()[-800:]}" for path in folder.rglob("log.txt"))


def substeps(description):
    """Of the flow of a network, wherever in its description."""
    return description["init_args"]["solver"]["init_args"]["substeps"]


@pytest.mark.long
def test_horizons(swept, capsys):
    out, policies = swept("horizon_tiny")
    assert policies.keys() == {("16",), ("3",)}
    for (horizon,), checkpoint in policies.items():
        options = checkpoint["hyper_parameters"]
        assert options["horizon"] == int(horizon)
        assert options["critic_optimizer"]["minibatches"] == 2
        assert checkpoint["global_step"] == 2
    assert run(["report", str(out), "--out", str(out.parent / "report")]) == 0
    assert "horizon" in (out.parent / "report" / "results.md").read_text()


@pytest.mark.long
def test_precision(swept):
    _, policies = swept("precision_tiny")
    assert policies.keys() == {(model, policy) for model in ("2", "4") for policy in ("2", "4")}
    for (model, policy), checkpoint in policies.items():
        description = checkpoint["lit_pwm"]
        assert substeps(description["world_model"]["dynamics"]) == int(model)
        assert substeps(description["actor"]) == int(policy)


def model_of(checkpoint):
    return {name: value for name, value in checkpoint["state_dict"].items() if name.startswith("world_model.")}


@pytest.mark.long
def test_finetuning(swept):
    out, policies = swept("finetuning_tiny")
    assert policies.keys() == {
        (training, policy) for training in ("frozen", "finetuned") for policy in ("mlp", "flow2")
    }
    (path,) = (out / "pretrain").glob("**/checkpoints/last.ckpt")
    trained = model_of(read_checkpoint(path))
    for (training, policy), checkpoint in policies.items():
        model = model_of(checkpoint)
        moved = {name for name, value in trained.items() if not torch.equal(value, model[name])}
        assert bool(moved) == (training == "finetuned"), (training, policy)
        actor = checkpoint["lit_pwm"]["actor"]
        assert actor["class_path"].rpartition(".")[2] == ("MLPActor" if policy == "mlp" else "FlowActor")


@pytest.mark.long
def test_epochs(swept):
    _, policies = swept("epochs_tiny")
    kinds = ("mlp", "flow")
    assert policies.keys() == {(updates, model, policy) for updates in "24" for model in kinds for policy in kinds}
    for (updates, model, policy), checkpoint in policies.items():
        assert checkpoint["global_step"] == int(updates)
        description = checkpoint["lit_pwm"]
        dynamics, actor = description["world_model"]["dynamics"], description["actor"]
        if model == "flow":
            assert substeps(dynamics) == 8
        if policy == "flow":
            assert substeps(actor) == 4
        assert dynamics["class_path"].rpartition(".")[2] == ("MLPDynamics" if model == "mlp" else "FlowDynamics")
