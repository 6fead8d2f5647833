"""The datamodule and its configs through jsonargparse, as `lit-pwm fit` reads them."""

import shutil

import pytest
import yaml
from jsonargparse import ArgumentParser
from lightning.pytorch import LightningDataModule

from datamodules import MultitaskDataModule
from lit_pwm.paths import config_root

CONFIGS = sorted((config_root() / "data").glob("*.yaml"))


def parse(*argv):
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--config", action="config")
    parser.add_subclass_arguments(LightningDataModule, "data")
    return parser, parser.parse_args([str(argument) for argument in argv])


def test_there_are_configs():
    assert {path.name for path in CONFIGS} >= {"demo.yaml", "mt30.yaml"}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_each_config_gives_batches(path, mixed_store):
    parser, arguments = parse("--config", path, "--data.init_args.store", mixed_store, "--data.init_args.batch_size", 8)
    assert set(yaml.safe_load(path.read_text())) == {"data"}
    data = parser.instantiate_classes(arguments).data
    assert isinstance(data, MultitaskDataModule)
    data.setup()
    assert next(iter(data.train_dataloader()))["obs"].shape[1] == 8
    again = parser.parse_string(parser.dump(arguments))
    assert again.data.init_args == arguments.data.init_args


def test_lists_of_stores_and_tasks(mixed_store, tmp_path):
    other = shutil.copy(mixed_store, tmp_path / "other.h5")
    base = ["--data", "datamodules.MultitaskDataModule"]
    argv = ["--data.store", f"[{mixed_store}, {other}]", "--data.tasks", "[cup-catch]"]
    parser, arguments = parse(*base, *argv)
    data = parser.instantiate_classes(arguments).data
    assert data.paths == [str(mixed_store), str(other)]
    assert list(data.tasks) == ["cup-catch"]


@pytest.mark.parametrize("option", [["--data.balance", "task"], ["--data.storage", "rom"], ["--data.horizon", "long"]])
def test_values_of_the_wrong_kind_are_refused(mixed_store, option):
    from argparse import ArgumentError

    with pytest.raises(ArgumentError, match=option[0].removeprefix("--data.")):
        parse("--data", "datamodules.MultitaskDataModule", "--data.store", mixed_store, *option)
