"""`lit-pwm checkpoint convert`: there and back on the command line, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from lit_pwm.checkpoints import load_policy, load_world_model
from lit_pwm.cli.main import run

FOREIGN = Path(__file__).parents[1] / "formats" / "pwm_files"
OLD = Path(__file__).parents[1] / "fixtures_v1"
TASKS = "walker-walk,cup-catch,cheetah-run"


def convert(*argv):
    return run(["checkpoint", "convert", *map(str, argv)])


def test_there_and_back_gives_the_same_file(tmp_path, capsys):
    source = FOREIGN / "pwm_single_task.pt"
    assert convert(source, "--to", "native", "--out", tmp_path / "ours.ckpt", "--tasks", "walker-walk") == 0
    assert "native" in capsys.readouterr().out
    assert convert(tmp_path / "ours.ckpt", "--to", "pwm", "--out", tmp_path / "theirs.pt") == 0
    first, second = (torch.load(path, weights_only=True) for path in (source, tmp_path / "theirs.pt"))
    assert list(first) == list(second)
    for part in ("actor", "critic", "world_model"):
        assert list(first[part]) == list(second[part])
        assert all(torch.equal(first[part][key], second[part][key]) for key in first[part])
    assert load_policy(tmp_path / "ours.ckpt").trained_tasks == ("walker-walk",)
    capsys.readouterr()
    assert run(["checkpoint", "inspect", str(tmp_path / "ours.ckpt"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["kind"] == "policy"


def test_a_trained_policy_of_ours_acts_the_same_in_a_file_of_pwms(policy, tmp_path):
    """Of a run that standardises observations and feeds G·z − 1: both are folded, of tasks that share statistics."""
    content = torch.load(policy, weights_only=True)
    state = content["state_dict"]
    for name in ("obs_mean", "obs_std"):
        state[f"world_model.{name}"][:] = state[f"world_model.{name}"][1].clone()
    torch.save(content, tmp_path / "shared.ckpt")
    assert convert(tmp_path / "shared.ckpt", "--to", "pwm", "--out", tmp_path / "pwm.pt") == 0
    ours = load_policy(tmp_path / "shared.ckpt")
    theirs = load_policy(tmp_path / "pwm.pt", tasks=list(ours.task_names))
    obs = torch.randn(9, 5, generator=torch.Generator().manual_seed(0))
    task = torch.arange(9) % 2
    with torch.no_grad():
        z = ours.world_model.encode(obs, task)
        torch.testing.assert_close(theirs.world_model.encode(obs, task), z, atol=1e-5, rtol=0)
        for critics in ("critic", "target_critic"):
            torch.testing.assert_close(getattr(theirs, critics)(z, task), getattr(ours, critics)(z, task))
    for name in ours.task_names:
        difference = abs(theirs.act(obs.numpy(), name) - ours.act(obs.numpy(), name)).max()
        assert difference < 1e-5


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ([FOREIGN / "pwm_training.pt", "--to", "native"], "--tasks"),
        ([FOREIGN / "pwm_training.pt", "--to", "pwm", "--tasks", TASKS], "--partial"),
        ([FOREIGN / "flow_mbpo_flow_pretraining.pt", "--to", "pwm"], "LegacyFlowDynamics"),
        ([FOREIGN / "flow_mbpo_pretraining.pt", "--to", "pwm"], "no actor and no critic"),
        ([OLD / "flow_policy.ckpt", "--to", "flow-mbpo"], "dynamics"),
        ([FOREIGN / "flow_mbpo_pretraining.pt", "--to", "pwmm"], "Did you mean 'pwm'"),
        ([FOREIGN / "flow_mbpo_pretraining.pt", "--to", "native", "--tasks", ","], "--tasks"),
        (["nothing.pt", "--to", "native"], "nothing.pt"),
    ],
    ids=lambda value: None if isinstance(value, str) else f"{Path(str(value[0])).stem}-{value[2]}",
)
def test_what_cannot_be_is_refused_by_name(argv, said, refused):
    assert said in refused("checkpoint", "convert", *argv, "--out", "out.pt")


def test_the_source_is_not_replaced_and_no_folder_is_written_to(refused, tmp_path):
    source = FOREIGN / "flow_mbpo_pretraining.pt"
    assert "which it is made from" in refused("checkpoint", "convert", source, "--to", "native", "--out", source)
    assert "folder" in refused("checkpoint", "convert", source, "--to", "native", "--out", FOREIGN)
    assert load_world_model(source).latent_dim == 16
