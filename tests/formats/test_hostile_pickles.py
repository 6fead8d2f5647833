"""Wherever a checkpoint is taken, one that holds Python objects is refused with our error and has run nothing."""

from __future__ import annotations

import io
import os
import pickle
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import fsspec
import numpy as np
import pytest
import torch
from foreign_files import current_file, original_file, tiny_policy, world_model_weights
from lightning.pytorch import Trainer
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


@pytest.mark.parametrize("place", ["{}", "file://{}", "memory://hostile.ckpt"])
def test_as_the_file_to_go_on_from_of_a_bare_trainer(place, tmp_path, data, saved):
    """Which reads it itself, and has none of the command line's callbacks."""
    mark, path, sound = tmp_path / "this code ran", tmp_path / "hostile.ckpt", saved({"model": world_model_weights()})
    torch.save(with_payload(Payload(mark))["native, foreign"], path)
    fsspec.filesystem("memory").pipe("/hostile.ckpt", path.read_bytes())
    called = place.format(path)
    for module in (WorldModelPretraining(initial_checkpoint=str(sound)), tiny_policy(sound)):
        trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, max_steps=1)
        for go in (trainer.fit, trainer.validate):
            refused(lambda go=go, module=module: go(module, data(), ckpt_path=called), called)
    assert not mark.exists()


def in_other_containers(payload, path: Path) -> dict[str, Callable[[], object]]:
    """Writers of files that torch has a reader of its own for."""

    def script() -> None:
        torch.jit.script(torch.nn.Linear(1, 1)).save(str(path))
        with zipfile.ZipFile(path, "a") as file:
            file.writestr("hostile/extra/payload.pkl", pickle.dumps(payload))

    def tar() -> None:
        with tarfile.open(path, "w") as file:
            for name in ("sys_info", "pickle", "storages", "tensors"):
                content, info = pickle.dumps(payload), tarfile.TarInfo(name)
                info.size = len(content)
                file.addfile(info, io.BytesIO(content))

    def numpy() -> None:
        with path.open("wb") as file:
            np.save(file, np.array([payload], dtype=object), allow_pickle=True)

    return {
        "legacy": lambda: torch.save({"state_dict": payload}, path, _use_new_zipfile_serialization=False),
        "pickle": lambda: path.write_bytes(pickle.dumps(payload)),
        "numpy": numpy,
        "script": script,
        "tar": tar,
    }


@pytest.mark.parametrize("container", in_other_containers(None, Path()))
@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_other_containers(container, tmp_path):
    """Nothing of torch's advice to read them unsafely is passed on."""
    mark, path = tmp_path / "this code ran", tmp_path / "hostile.ckpt"
    in_other_containers(Payload(mark), path)[container]()
    for read in (load_world_model, read_any):
        with pytest.raises(LitPWMError, match="cannot be read safely") as caught:
            read(path)
        assert "weights_only" not in str(caught.value)
        assert "\n" not in str(caught.value)
    assert not mark.exists()


def test_what_is_no_file_is_called_what_it_is(tmp_path):
    """And a pipe, whose reader would wait for ever, is not opened."""
    os.mkfifo(tmp_path / "pipe.ckpt")
    (tmp_path / "folder.ckpt").mkdir()
    for name, what in {"pipe": "is no regular file", "folder": "is a folder", "none": "does not exist"}.items():
        with pytest.raises(LitPWMError, match=what):
            load_world_model(tmp_path / f"{name}.ckpt")


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
