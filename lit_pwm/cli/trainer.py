"""The verbs `fit`, `validate` and `test`: LightningCLI, with our defaults and errors."""

from __future__ import annotations

import argparse
import contextlib
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.trainer.states import TrainerStatus

import callbacks
import datamodules
import lit_pwm.models
from lit_pwm.checkpoints import read_checkpoint
from lit_pwm.cli.explain import own_error
from lit_pwm.errors import LitPWMError, did_you_mean
from lit_pwm.paths import find_config


class SaveConfigWhenTrainingStarts(SaveConfigCallback):
    """Writes config.yaml once everything has been checked, so that a run refused at its start leaves nothing behind."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Write nothing yet."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the config beside the logs."""
        super().setup(trainer, pl_module, "fit")


class CLI(LightningCLI):
    """LightningCLI whose command line wins over a resumed checkpoint, and says where they differ."""

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """The Trainer methods that are verbs."""
        skipped = {"model", "train_dataloaders", "val_dataloaders", "dataloaders", "datamodule", "weights_only"}
        return dict.fromkeys(("fit", "validate", "test"), skipped)

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Name the data class, so that `--data.store` works without a config."""
        parser.set_defaults({"data": {"class_path": "datamodules.MultitaskDataModule"}})

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Log to CSV files where the config asks for no logger of its own."""
        if self._get(self.config_init, "trainer.logger") in (None, True):
            root = self._get(self.config_init, "trainer.default_root_dir") or "."
            kwargs["logger"] = CSVLogger(root)
        return super().instantiate_trainer(**kwargs)

    def _prepare_subcommand_kwargs(self, subcommand: str) -> dict[str, Any]:
        """Read checkpoints without running code that they might contain."""
        return super()._prepare_subcommand_kwargs(subcommand) | {"weights_only": True}

    def _run_subcommand(self, subcommand: str) -> None:
        """Run the verb; Ctrl-C, which Lightning turns into `sys.exit(1)`, becomes KeyboardInterrupt again."""
        try:
            super()._run_subcommand(subcommand)
        except SystemExit:
            if self.trainer.state.status == TrainerStatus.INTERRUPTED:
                raise KeyboardInterrupt from None
            raise
        except LitPWMError:
            # Loggers make their folders before the first check; one that is still empty is not a run.
            for logger in self.trainer.loggers:
                folder = Path(getattr(logger, "log_dir", None) or self.trainer.default_root_dir)
                with contextlib.suppress(OSError):
                    folder.rmdir()
                    folder.parent.rmdir()
            raise

    def _parse_ckpt_path(self) -> None:
        """Say which settings differ from the checkpoint's; unlike Lightning's own rule, this run's win."""
        config = self.config[self.config.subcommand]
        path = config.get("ckpt_path")
        if not path or path in ("best", "last", "hpc"):
            return
        saved = dict(read_checkpoint(path).get("hyper_parameters", {}))
        wanted = config.model.init_args
        # A policy's checkpoint holds its world model, so that resuming does not need the file it was trained on.
        if "world_model_checkpoint" in wanted and not wanted.world_model_checkpoint:
            wanted.world_model_checkpoint = str(path)
            saved.pop("world_model_checkpoint", None)
        for start in ("initial_checkpoint", "initial_policy_checkpoint"):
            saved.pop(start, None)
            if wanted.get(start):
                wanted[start] = None
        differences = [
            f"  {key}: {value!r} in the checkpoint, {_plain(wanted[key])!r} in this run"
            for key, value in saved.items()
            if key in wanted and not key.startswith("_") and _plain(wanted[key]) != _plain(value)
        ]
        print(f"Resuming from {path}: weights, optimizer moments and counters are the checkpoint's.", file=sys.stderr)
        if differences:
            print("These settings differ; this run's win:", *differences, sep="\n", file=sys.stderr)
        else:
            print("All settings are those of the checkpoint.", file=sys.stderr)


def _plain(value: Any) -> Any:
    """Tuples as lists and namespaces as dictionaries, for comparing."""
    if isinstance(value, argparse.Namespace):
        return {key: _plain(item) for key, item in vars(value).items()}
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def build(argv: list[str], run: bool = True) -> CLI:
    """Parse a command line and run it.

    Args:
        argv: the verb and its options, or the options alone with `run` off.
        run: whether to run the verb; else the objects are only built.

    Raises:
        LitPWMError: an option, file or value is not accepted.
    """
    # LightningCLI warns when it is given arguments that are not the process's, and DDP starts its other ranks with the
    # process's: so these become the process's.
    program, sys.argv = sys.argv, [sys.argv[0], *resolve_configs(argv)]
    try:
        return CLI(
            LightningModule,
            LightningDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            auto_configure_optimizers=False,
            seed_everything_default=0,
            save_config_callback=SaveConfigWhenTrainingStarts,
            trainer_defaults={
                "callbacks": [
                    callbacks.RunProgress(),
                    callbacks.NonFiniteGuard(),
                    callbacks.RNGState(),
                    callbacks.LastCheckpoint(),
                ],
                "max_epochs": -1,
            },
            parser_kwargs={"exit_on_error": False},
            run=run,
        )
    except argparse.ArgumentError as error:
        raise own_error(error) or LitPWMError(explain(error)) from error
    except ValueError as error:  # jsonargparse's, around whatever a constructor raises
        if (own := own_error(error)) is not None:
            raise own from error
        raise
    finally:
        sys.argv = program


def resolve_configs(argv: list[str]) -> list[str]:
    """The command line with `--config` names replaced by the files they mean, here or among the shipped ones."""
    resolved, names_file = [], False
    for argument in argv:
        if names_file:
            argument = str(find_config(argument))
        elif argument.startswith(("--config=", "-c=")):
            option, _, name = argument.partition("=")
            argument = f"{option}={find_config(name)}"
        names_file = argument in ("--config", "-c")
        resolved.append(argument)
    if names_file:
        raise LitPWMError("The option --config was given without a file. Write --config FILE.yaml.")
    return resolved


def explain(error: argparse.ArgumentError) -> str:
    """One paragraph of jsonargparse's message: which option, what was found, the nearest names where it is unknown."""
    message = " ".join(str(error.message).split())
    nested = re.search(r"NestedArg\(key='([\w.]+)', val=(.*?)\)", message)
    unknown = re.search(r"does not accept option '([\w.]+)'|[Kk]ey '([\w.]+)' is not expected", message)
    if nested:
        option, value = nested.group(1), nested.group(2)
    elif unknown:
        option, value = unknown.group(1) or unknown.group(2), None
    else:
        return (
            f"The command line or a config file is not accepted: {message[:600]} Mend it, and see "
            f"`lit-pwm fit --help` for the options and their types."
        )
    name, known = option.rsplit(".", 1)[-1], _option_names()
    if name in known and value is not None:
        reason = re.search(r"Expected [^:]*?\. Got value: \S+|invalid literal[^.]*", message)
        return (
            f"The option {option!r} was given the value {value}, which is not of its type"
            f"{f' ({reason.group(0)})' if reason else ''}. See `lit-pwm fit --help` for the types."
        )
    return (
        f"There is no option {option!r} on the command line or in a config for the chosen class. "
        f"{did_you_mean(name, sorted(known), shown=0)} See `lit-pwm fit --help` for the options."
    ).replace(" Accepted: , ….", "")


def _option_names() -> set[str]:
    """Names of the options of our modules and the Trainer, for suggestions."""
    import inspect

    owners = (lit_pwm.WorldModelPretraining, lit_pwm.PolicyLearning, datamodules.MultitaskDataModule, Trainer)
    return {name for owner in owners for name in inspect.signature(owner).parameters}


def run(argv: list[str]) -> int:
    """Run a Trainer verb and return its exit code."""
    build(argv)
    return 0
