"""`lit-pwm checkpoint inspect`: what a file is and holds, and one paragraph for what is none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from lit_pwm.checkpoints.native import DESCRIPTION_KEY
from lit_pwm.cli.main import run
from lit_pwm.models.sizes import SIZES
from lit_pwm.provenance import versions

OLD = Path(__file__).parents[1] / "fixtures_v1"


def inspected(path, capsys):
    capsys.readouterr()
    assert run(["checkpoint", "inspect", str(path), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_a_policy_says_all_that_its_run_knew(policy, world_model, capsys):
    found = inspected(policy, capsys)
    assert (found["kind"], found["format"]["name"], found["step"]) == ("policy", "native", 4)
    assert list(found["tasks"].items()) == [("cartpole-balance", [5, 1]), ("cartpole-swingup", [5, 1])]
    assert found["trained_tasks"] == ["cartpole-swingup"]
    assert found["versions"].items() >= versions().items()
    assert found["config"]["model.horizon"] == 16
    assert found["metrics"]["eval/return"]["best"] >= 0
    assert found["bytes"] == policy.stat().st_size == sum(found["bytes_by_part"].values())
    content = torch.load(policy, weights_only=True)
    critics = [value for key, value in content["state_dict"].items() if key.startswith("critic.")]
    assert found["sizes"]["parameters"]["critic"] == sum(value.numel() for value in critics)
    assert found["bytes_by_part"]["critic"] == 4 * sum(value.numel() for value in critics)
    of_model = inspected(world_model, capsys)
    assert of_model["kind"] == "world model"
    assert of_model["data"]["tasks"] == ["cartpole-balance", "cartpole-swingup"]
    # The policy learns from one task of the same store: other data.
    assert of_model["data"]["fingerprint"] != found["data"]["fingerprint"]


def test_the_fingerprint_is_of_what_stores_hold_and_not_of_where_they_lie(store, tmp_path):
    from datamodules import MultitaskDataModule

    copy = tmp_path / "another name.h5"
    copy.write_bytes(store.read_bytes())
    first, second = MultitaskDataModule(str(store)), MultitaskDataModule(str(copy))
    assert first.fingerprint == second.fingerprint
    assert len(first.fingerprint) == 16
    assert MultitaskDataModule(str(store), tasks=["cartpole-balance"]).fingerprint != first.fingerprint
    assert MultitaskDataModule([str(store), str(OLD / "made.h5")]).fingerprint is None  # a store without checksums


def test_the_table_and_a_file_of_an_older_version(capsys):
    assert run(["checkpoint", "inspect", str(OLD / "flow_policy.ckpt")]) == 0
    text = capsys.readouterr().out
    for part in ("policy", "native, version 1", "cartpole-swingup, reacher-easy", "FlowActor", "not said"):
        assert part in text, part


def test_a_size_has_its_name(tmp_path, capsys):
    from functools import partial

    from lit_pwm.checkpoints import describe_world_model
    from lit_pwm.models import MLPDynamics, MLPEncoder, TwoHotReward, WorldModel

    size = SIZES["1m"]
    model = WorldModel(
        {"walker-walk": (24, 6)}, partial(MLPDynamics, hidden_dim=size.dynamics_dim), size.latent_dim, size.task_dim,
        partial(MLPEncoder, hidden_dim=size.encoder_dim), partial(TwoHotReward, hidden_dim=size.reward_dim),
    )  # fmt: skip
    state = {f"world_model.{key}": value for key, value in model.state_dict().items()}
    torch.save({"state_dict": state, DESCRIPTION_KEY: describe_world_model(model)}, tmp_path / "m.ckpt")
    found = inspected(tmp_path / "m.ckpt", capsys)
    assert found["sizes"]["like"] == "1m"
    assert found["sizes"]["total"] == sum(parameter.numel() for parameter in model.parameters())
    assert found["step"] is None


@pytest.mark.parametrize("damage", ["components", "steering", "tasks", "callbacks"])
def test_a_damaged_or_hostile_file_ends_in_one_paragraph_or_is_shown_escaped(damage, tmp_path, monkeypatch, capsys):
    content = torch.load(OLD / "mlp_policy.ckpt", weights_only=True)
    description = content[DESCRIPTION_KEY]
    if damage == "components":
        description["format"], description["world_model"]["encoder"] = 2, 7
    elif damage == "steering":
        content["callbacks"] = {"m": {"monitor": "\x1b[2J[bold]loss[/bold]", "current_score": 1.0}}
    elif damage == "tasks":
        description["world_model"]["tasks"] = {}
    else:
        content["callbacks"] = [1, 2]
    path = tmp_path / "damaged.ckpt"
    torch.save(content, path)
    monkeypatch.chdir(tmp_path)
    code = run(["checkpoint", "inspect", str(path)])
    out, err = capsys.readouterr()
    assert "\x1b" not in out + err
    if damage == "steering":
        assert code == 0
        assert "[bold]loss" in out
    else:
        assert code == 2
        assert "damaged.ckpt" in err
        assert "Traceback" not in err
        assert err[err.index("error: ") :].count("\n\n") == 0


FOREIGN = Path(__file__).parents[1] / "formats" / "pwm_files"


def test_files_of_other_projects_say_what_they_know(capsys):
    found = inspected(FOREIGN / "flow_mbpo_flow_pretraining.pt", capsys)
    assert (found["kind"], found["format"]["name"], found["step"]) == ("world model", "flow-mbpo", 133000)
    assert list(found["tasks"]) == ["walker-walk", "cup-catch", "cheetah-run"]
    assert found["components"]["dynamics"]["init_args"]["method"] == "euler"
    assert found["config"]["alg"]["flow_substeps"] == 8
    content = torch.load(FOREIGN / "flow_mbpo_flow_pretraining.pt", weights_only=True)["world_model"]
    total = sum(value.numel() for value in content.values())
    assert found["sizes"]["total"] == total
    assert sum(count for part, count in found["bytes_by_part"].items() if part.startswith("_")) == 4 * total
    assert sum(found["bytes_by_part"].values()) == found["bytes"]
    training = inspected(FOREIGN / "flow_mbpo_training.pt", capsys)
    assert (training["kind"], training["step"], training["unnamed_tasks"]) == ("policy", 1200, 3)
    assert training["metrics"]["best_reward"] == 512.25
    assert training["statistics"] == ["obs_rms", "ret_rms"]
    assert inspected(FOREIGN / "flow_mbpo_flow_actor.pt", capsys)["carried"] == ["actor", "critic"]
    assert run(["checkpoint", "inspect", str(FOREIGN / "pwm_single_task.pt")]) == 0
    assert "--tasks" in capsys.readouterr().out
