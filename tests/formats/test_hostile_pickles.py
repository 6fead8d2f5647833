"""Wherever a checkpoint is taken, one that holds Python objects is refused with our error and has run nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from foreign_files import current_file, original_file, tiny_policy, world_model_weights
from support import fit

from lit_pwm import PolicyLearning, WorldModelPretraining, load_policy, load_world_model
from lit_pwm.checkpoints import DESCRIPTION_KEY, convert, read_checkpoint, read_description
from lit_pwm.checkpoints.formats import read_any
from lit_pwm.cli.main import run
from lit_pwm.errors import LitPWMError


class Payload:
    """Makes a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return open, (str(self.mark), "w")


def with_payload(payload):
    """Contents of the formats, each with the payload somewhere else."""
    original, current = original_file(world_model_weights()), current_file(world_model_weights())
    current["model"]["_Qs.params.__device"] = payload
    return {
        "alone": payload,
        "tdmpc2-original, a weight": {"model": original["model"] | {"_reward.2.bias": payload}},
        "tdmpc2-original, carried": {"model": original["model"] | {"_Qs.params.3": payload}},
        "tdmpc2-original, beside": original | {"optimizer": payload},
        "tdmpc2, a plain value": current,
        "pwm-model, a key": {"model": world_model_weights() | {payload: torch.zeros(1)}},
        "pwm, statistics": {"world_model": world_model_weights(state=""), "obs_rms": payload},
        "native, description": {"state_dict": {}, DESCRIPTION_KEY: payload},
        "native, foreign": {"state_dict": {}, DESCRIPTION_KEY: {"format": 2}, "foreign": {"carried": payload}},
        "state-dict": {"encoder.net.0.weight": payload, "dynamics.net": payload, "heads.reward.net": payload},
    }


KINDS = list(with_payload(None))


@pytest.fixture(params=KINDS)
def hostile(request, tmp_path):
    mark, path = tmp_path / "this code ran", tmp_path / "hostile.ckpt"
    torch.save(with_payload(Payload(mark))[request.param], path)
    yield path
    assert not mark.exists()


def refused(act, path):
    with pytest.raises(LitPWMError) as caught:
        act()
    assert str(path) in str(caught.value)
    assert "Python objects" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_in_python(hostile, tmp_path):
    for read in (load_world_model, load_policy, read_any, read_checkpoint, read_description):
        refused(lambda read=read: read(hostile), hostile)
    refused(lambda: convert(hostile, "native", tmp_path / "out.ckpt"), hostile)
    for module in (WorldModelPretraining, PolicyLearning):
        refused(lambda module=module: module.load_from_checkpoint(hostile), hostile)


def test_as_an_option_of_a_run(hostile, data, saved):
    sound = saved({"model": world_model_weights()})
    for module in (
        WorldModelPretraining(initial_checkpoint=str(hostile)),
        tiny_policy(hostile),
        tiny_policy(sound, initial_policy_checkpoint=str(hostile)),
    ):
        refused(lambda module=module: fit(module, data(), 1, limit_val_batches=0), hostile)


FIT = [
    "--data.batch_size=8",
    "--data.horizon=4",
    "--trainer.max_steps=1",
    "--trainer.logger=false",
    "--trainer.accelerator=cpu",
]
VERBS = {
    "evaluate": ["evaluate", "--checkpoint", "F", "--episodes", "1"],
    "collect": ["collect", "--tasks", "cup-catch", "--episodes", "1", "--out", "O.h5", "--behaviour", "F"],
    "inspect": ["checkpoint", "inspect", "F"],
    "convert": ["checkpoint", "convert", "F", "--to", "native", "--out", "O.ckpt"],
    "export": ["checkpoint", "export", "F", "--to", "torch-export", "--out", "O.pt2"],
    "initial_checkpoint": ["fit", "--config", "configs/pretrain.yaml", "--model.initial_checkpoint", "F"],
    "world_model_checkpoint": [
        "fit",
        "--config",
        "configs/policy_learning.yaml",
        "--model.world_model_checkpoint",
        "F",
    ],
    "ckpt_path": ["fit", "--config", "configs/pretrain.yaml", "--ckpt_path", "F"],
    "validate": ["validate", "--config", "configs/pretrain.yaml", "--ckpt_path", "F"],
}


@pytest.mark.parametrize("verb", VERBS)
def test_on_the_command_line(verb, tmp_path, three_task_store, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    mark, path = tmp_path / "this code ran", tmp_path / "hostile.ckpt"
    torch.save(with_payload(Payload(mark))["tdmpc2-original, carried"], path)
    argv = [str(path) if part == "F" else part for part in VERBS[verb]]
    if argv[0] in ("fit", "validate"):
        argv += ["--data.store", str(three_task_store), *FIT, "--trainer.default_root_dir", str(tmp_path / "run")]
    assert run(argv) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert str(path) in said
    assert "Python objects" in said
    assert not mark.exists()
    assert not list(tmp_path.glob("O.*"))


def test_auto_passes_it_over(tmp_path, three_task_store, capsys):
    mark, folder = tmp_path / "this code ran", tmp_path / "run"
    folder.mkdir()
    torch.save(with_payload(Payload(mark))["native, description"], folder / "last.ckpt")
    argv = ["fit", "--config", "configs/pretrain.yaml", "--ckpt_path", "last", "--data.store", str(three_task_store)]
    assert run([*argv, *FIT, "--trainer.default_root_dir", str(folder)]) == 2
    assert "is passed over" in capsys.readouterr().err
    assert not mark.exists()
