"""Paths mean what a shell would mean, wherever they are written, and stay what they were when the folder changes."""

import argparse
import os
import shutil

import numpy as np
import pytest

from datamodules import EpisodeStore, EpisodeWriter, MultitaskDataModule
from datamodules.collecting import check_arguments
from lit_pwm import PolicyLearning, WorldModelPretraining
from lit_pwm.checkpoints import read_checkpoint
from lit_pwm.cli.main import build_parser, run
from lit_pwm.errors import LitPWMError
from lit_pwm.paths import absolute, expanded, find_config
from lit_pwm.runtime.atomic import replacing

PLACES = ("F", "F.h5", "DIR", "R.json", "RUNS", "SWEEP.yaml")


@pytest.fixture
def home(tmp_path, monkeypatch, store):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    shutil.copy(store, tmp_path / "home" / "a.h5")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    return tmp_path / "home"


def path_options(parser=None):
    for action in (parser or build_parser())._actions:
        if isinstance(action, argparse._SubParsersAction):
            for verb, own in action.choices.items():
                for found in path_options(own):
                    yield (verb, *found) if isinstance(found, tuple) else (verb, found)
        elif action.metavar in PLACES:
            yield action


@pytest.mark.parametrize("found", list(path_options()), ids=lambda f: " ".join([*f[:-1], f[-1].dest]))
def test_every_path_of_every_verb_expands_the_home_folder(found, home):
    read = found[-1].type
    assert read is not None
    assert read("~/x") == str(home / "x")
    with pytest.raises(argparse.ArgumentTypeError, match="NUL"):
        read("a\0b")


def test_the_walk_finds_the_paths():
    assert len(list(path_options())) >= 11


def test_home_in_python(home):
    assert MultitaskDataModule("~/a.h5", horizon=4, batch_size=8).tasks.keys() == EpisodeStore("~/a.h5").tasks.keys()
    with replacing("~/new/file.txt", "The file") as beside:
        beside.write_text("x")
    assert (home / "new" / "file.txt").is_file()
    with EpisodeWriter("~/mine.h5", tasks={"t": (2, 1)}) as writer:
        writer.append(task="t", obs=np.zeros((3, 2)), action=np.zeros((2, 1)), reward=np.zeros(2))
    assert (home / "mine.h5").is_file()
    with pytest.raises(LitPWMError, match=str(home / "no.ckpt")):
        read_checkpoint("~/no.ckpt")
    (home / "my.yaml").write_text("trainer: {max_steps: 1}")
    assert find_config("~/my.yaml") == home / "my.yaml"
    with pytest.raises(LitPWMError, match="exists"):
        check_arguments(["cup-catch"], 1, "~/a.h5", "noise", 1, 0)
    assert not (home.parent / "elsewhere" / "~").exists()


@pytest.mark.filterwarnings("ignore")
def test_home_in_a_config_and_on_the_command_line(home):
    (home.parent / "elsewhere" / "mine.yaml").write_text("data: {class_path: datamodules.MultitaskDataModule, "
                                                         "init_args: {store: ~/a.h5}}\n")  # fmt: skip
    argv = ["fit", "--config", "configs/pretrain.yaml", "--config", "configs/world_model/mlp_tiny.yaml", "--config"]
    argv += ["mine.yaml", "--data.horizon", "4", "--data.batch_size", "8", "--trainer.max_steps", "1"]
    argv += ["--trainer.val_check_interval", "1", "--trainer.limit_val_batches", "1"]
    assert run([*argv, "--trainer.default_root_dir=~/run", "--trainer.callbacks", "null"]) == 0
    assert len(list((home / "run").rglob("last.ckpt"))) == 1
    assert run(["data", "check", "~/a.h5"]) == 0
    assert os.listdir() == ["mine.yaml"]


def test_a_changed_folder_changes_no_path(home, monkeypatch, tmp_path):
    monkeypatch.chdir(home)
    data = MultitaskDataModule("a.h5", horizon=4, batch_size=8)
    opened = MultitaskDataModule("a.h5", horizon=4, batch_size=8)
    opened.setup()
    learning = PolicyLearning(world_model_checkpoint="m.ckpt", initial_policy_checkpoint="p.ckpt")
    training = WorldModelPretraining(initial_checkpoint="m.ckpt")
    store = EpisodeStore("a.h5")
    with EpisodeWriter("mine.h5", tasks={"t": (2, 1)}) as writer:
        monkeypatch.chdir(tmp_path / "elsewhere")
        writer.append(task="t", obs=np.zeros((3, 2)), action=np.zeros((2, 1)), reward=np.zeros(2))
    assert (home / "mine.h5").is_file()
    assert os.listdir() == []
    assert len(store[0].obs) > 1
    data.setup()
    for one in (data, opened):
        assert next(iter(one.train_dataloader()))["obs"].shape[:2] == (5, 8)
    assert training.initial_checkpoint == learning.world_model_checkpoint == str(home / "m.ckpt")
    assert learning.initial_policy_checkpoint == str(home / "p.ckpt")


@pytest.mark.parametrize(
    ("path", "says"),
    [("a\0b", "NUL"), ("caf\udce9.h5", r"\\udce9"), ("", "is empty"), ("~no-such-user-here/x", "'./~no-such-user")],
)
def test_what_can_be_no_path_is_named(path, says):
    for read in (expanded, absolute, EpisodeStore, read_checkpoint, MultitaskDataModule, find_config):
        with pytest.raises(LitPWMError, match=says):
            read(path)
    with pytest.raises(LitPWMError, match=says):
        EpisodeWriter(path, tasks={"t": (2, 1)})


def test_what_can_be_no_path_is_named_by_verbs(refused):
    assert "NUL" in refused("data", "info", "a\0b")
    assert "udce9" in refused("evaluate", "--checkpoint", "caf\udce9.ckpt")
