"""A run that is refused late removes the empty folders that it made itself: no others, and never the current one."""

import os
from pathlib import Path

import pytest

from lit_pwm.cli.main import run
from lit_pwm.runtime.outputs import NewFolders

OLD = Path(__file__).parents[1] / "fixtures_v1"
ROOT = "--trainer.default_root_dir="
CSV = "--trainer.logger.class_path=lightning.pytorch.loggers.CSVLogger"
HERE = [CSV, "--trainer.logger.save_dir=.", "--trainer.logger.name="]
NAMED = [CSV, "--trainer.logger.save_dir=.", "--trainer.logger.name=mine", "--trainer.logger.version=v"]
LATE = [
    "fit", "--config", "configs/pretrain.yaml", "--config", "configs/world_model/mlp_tiny.yaml",
    "--model.initial_checkpoint", OLD / "mlp.ckpt", "--model.task_set", "mt30", "--data.store", OLD / "collected.h5",
    "--trainer.accelerator", "cpu", "--trainer.max_steps", "2",
]  # fmt: skip


def tree(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@pytest.mark.parametrize(
    ("standing", "options"),
    [
        ("", []),
        ("lightning_logs/version_0", []),
        ("", ["--trainer.fast_dev_run=true"]),
        ("lightning_logs", ["--trainer.logger=false"]),
        ("", HERE),
        ("", NAMED),
        ("mine/v", NAMED),
        ("runs", [ROOT + "runs"]),
        ("", [ROOT + "runs/a"]),
    ],
)
def test_what_stood_before_stands_and_nothing_else(standing, options, tmp_path, monkeypatch, capsys):
    here = tmp_path / "above" / "here"
    (here / standing).mkdir(parents=True)
    monkeypatch.chdir(here)
    before = tree(tmp_path)
    assert run([str(part) for part in [*LATE, *options]]) == 2
    assert "model.task_set is 'mt30'" in capsys.readouterr().err
    assert os.getcwd() == str(here)
    assert tree(tmp_path) == before


def test_new_folders_are_known_by_what_stood(tmp_path):
    (tmp_path / "old" / "empty").mkdir(parents=True)
    (tmp_path / "link").symlink_to("old", target_is_directory=True)
    folders = NewFolders([tmp_path / "old", tmp_path / "new/root", tmp_path / "link"])
    for made in ("old/a/b", "new/root/a", "new/other"):
        (tmp_path / made).mkdir(parents=True)
    (tmp_path / "new/root/full").touch()
    folders.remove_empty(tmp_path / made for made in ("old/a/b", "new/root/a", "old/empty/deeper", "link/empty"))
    assert tree(tmp_path) == ["link", "new", "new/other", "new/root", "new/root/full", "old", "old/empty"]
    (tmp_path / "new/root/full").unlink()
    folders.remove_empty([tmp_path / "new/other", tmp_path / "new/root"])
    assert tree(tmp_path) == ["link", "old", "old/empty"]
