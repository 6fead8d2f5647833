"""The verbs `fit`, `validate` and `test`: LightningCLI, with our defaults and errors."""

from __future__ import annotations

import argparse
import sys
import warnings
from functools import partial
from typing import Any, cast

from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.trainer.states import TrainerStatus

import lit_pwm.models
from callbacks import RunLock
from lit_pwm.cli.continued_log import ContinuedCSVLogger, WholeCSVLogger
from lit_pwm.cli.diagnosis import diagnose
from lit_pwm.cli.explain import explain, own_error, parser_error
from lit_pwm.cli.given import given_options
from lit_pwm.cli.old_spellings import renewed_argv, renewed_options, renewing_configs
from lit_pwm.cli.ranks import agreed_with_rank_zero, end_ranks, shield_ranks, was_restarted
from lit_pwm.cli.resuming import FOUND_BY_NAME, Resumption, resolve, resolve_restarted
from lit_pwm.cli.run_settings import KeepSettings, place_of, planned_ranks, settings_of
from lit_pwm.cli.saved_config import SaveConfigWhenTrainingStarts
from lit_pwm.cli.switches import check_strategy, default_callbacks, without_what_is_off
from lit_pwm.cli.trainer_ranges import check_ranges
from lit_pwm.errors import LitPWMError, RunStopped
from lit_pwm.paths import absolute, find_config
from lit_pwm.runtime.outputs import NewFolders
from lit_pwm.updates.precision import require_supported_option


class CLI(LightningCLI):
    """LightningCLI whose command line wins over a resumed checkpoint, and says where they differ."""

    _resumed: Resumption | None = None
    _began_with: str | None = None

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """The Trainer methods that are verbs."""
        skipped = {"model", "train_dataloaders", "val_dataloaders", "dataloaders", "datamodule", "weights_only"}
        return dict.fromkeys(("fit", "validate", "test"), skipped)

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Name the data class, so that `--data.store` works without a config."""
        parser.epilog = (
            "All verbs take --debug, which shows the traceback of an error, --import MODULE (repeatable), whose "
            "components checkpoints may then name, --ignore-options A,B, which passes over options of checkpoints "
            "that their class no longer has, and --world-model FILE, which holds the world model of a policy's "
            "checkpoint that was saved without it."
        )
        parser.set_defaults({"data": {"class_path": "datamodules.MultitaskDataModule"}})

    def instantiate_trainer(self, **kwargs: object) -> Trainer:
        """Log to CSV files where the config asks for no logger of its own; a resumed run goes on with its files."""
        options = self._get(self.config_init, "trainer")
        require_supported_option(options.get("precision"))
        resumed = self._resumed
        goes_on = resumed is not None and resumed.by_name and resumed.version is not None and self.subcommand == "fit"
        if options.get("logger") in (None, True) and not options.get("barebones"):
            root = str(absolute(options.get("default_root_dir") or "."))
            if goes_on:
                kwargs["logger"] = ContinuedCSVLogger(root, resumed.version, resumed.global_step)
            else:
                kwargs["logger"] = WholeCSVLogger(root)
            self.save_config_kwargs |= {"overwrite": goes_on}
        if options.get("default_root_dir"):
            kwargs["default_root_dir"] = str(absolute(options["default_root_dir"]))
        trainer = super().instantiate_trainer(**kwargs)
        check_strategy(trainer)
        shield_ranks(trainer)
        return trainer

    def _instantiate_trainer(self, config: dict[str, Any], callbacks: list[Callback]) -> Trainer:
        """Add our default callbacks, and leave out what is switched off."""
        resumes_from = None if self._resumed is None else str(self._resumed.path)
        given = config.get("callbacks") or []
        given = [*given] if isinstance(given, (list, tuple)) else [given]
        added = [KeepSettings(self._settings, resumes_from, self._began_with), *default_callbacks([*given, *callbacks])]
        if self.save_config_callback and not config.get("fast_dev_run", False):
            parser, chosen = self._parser(self.subcommand), self.config.get(str(self.subcommand), self.config)
            added.append(self.save_config_callback(parser, chosen, **self.save_config_kwargs))
        return self.trainer_class(**without_what_is_off(config | {"callbacks": [*given, *callbacks, *added]}))

    def _prepare_subcommand_kwargs(self, subcommand: str) -> dict[str, object]:
        """Read checkpoints without running code that they might contain."""
        return super()._prepare_subcommand_kwargs(subcommand) | {
            "weights_only": True,
            "ckpt_path": None if self._resumed is None else str(self._resumed.path),
        }

    def _run_subcommand(self, subcommand: str) -> None:
        """Run the verb; Ctrl-C, which Lightning turns into `sys.exit(1)`, becomes KeyboardInterrupt again."""
        resumed, most = self._resumed, self.trainer.max_steps
        is_over = resumed is not None and 0 <= most <= resumed.global_step and not resumed.owes_evaluation
        if subcommand == "fit" and is_over:
            print(f"The run has its trainer.max_steps of {most} updates: nothing to do.", file=sys.stderr)
            return
        folders = NewFolders(self._folders("root_dir"))
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "Checkpoint directory .* exists and is not empty")
                # After each n-th update the state after it is what is wanted; Lightning offers the one before.
                warnings.filterwarnings("ignore", "Using ModelCheckpoint with manual optimization")
                warnings.filterwarnings("ignore", "You are trying to `self.log\\(\\)` but")  # barebones was asked for
                super()._run_subcommand(subcommand)
        except RunStopped:
            raise
        except SystemExit:
            if self.trainer.state.status == TrainerStatus.INTERRUPTED:
                raise KeyboardInterrupt from None
            raise
        except Exception:
            # Loggers make their folders before the first check; one that is still empty is not a run.
            folders.remove_empty(self._folders("log_dir"))
            raise
        finally:
            end_ranks(self.trainer)
            for callback in cast("Any", self.trainer).callbacks:
                if isinstance(callback, RunLock):
                    callback.release()  # which it did not where another's `on_exception` failed before

    def _folders(self, name: str) -> list[str]:
        """The folders under which the run writes: the Trainer's, and those that loggers have under this name."""
        of_loggers = [getattr(logger, name, None) for logger in self.trainer.loggers]
        return [self.trainer.default_root_dir, *(folder for folder in of_loggers if isinstance(folder, str))]

    def _parse_ckpt_path(self) -> None:
        """Find the checkpoint to resume from; unlike Lightning's own rule, this run's settings win over its."""
        if not self.config.get("subcommand"):
            self._settings: dict[str, object] = settings_of(self.config, planned_ranks(self.config.trainer))
            return
        verb = self.config.subcommand
        config = self.config[verb]
        self._settings = settings_of(config, planned_ranks(config.trainer))
        root = absolute(config.trainer.get("default_root_dir") or ".")
        if config.get("ckpt_path") is not None and not str(config.ckpt_path).strip():
            raise LitPWMError(
                "--ckpt_path is empty, as an unset variable of a shell makes it. Name a file, last or auto, or leave "
                "the option out to start anew."
            )
        restarted = verb == "fit" and was_restarted(root)
        asked = config.get("ckpt_path") or ("auto" if restarted else None)
        model, class_path = config.model.get("init_args", {}), config.model.get("class_path", "")
        if not asked:
            if verb != "fit" and not any(
                model.get(start) for start in ("initial_checkpoint", "initial_policy_checkpoint")
            ):
                raise LitPWMError(
                    f"The verb {verb} needs a trained network, and none is named. Give one with --ckpt_path FILE, or "
                    f"--ckpt_path last for the last one under trainer.default_root_dir."
                )
            return
        asked, kind = str(asked), _kind(class_path)
        if asked not in FOUND_BY_NAME:
            self._began_with = place_of(asked)
        find = partial(resolve_restarted, asked) if restarted else partial(resolve, asked, verb)
        ranks, nodes = planned_ranks(config.trainer), int(config.trainer.get("num_nodes") or 1)
        self._resumed = agreed_with_rank_zero(partial(find, root, kind, self._settings), ranks, nodes)


def _kind(class_path: str) -> str | None:
    """What checkpoints of a kind of module hold."""
    module, _, name = class_path.rpartition(".")
    found = getattr(sys.modules.get(module), name, None)
    if isinstance(found, type) and issubclass(found, lit_pwm.PolicyLearning):
        return "policy"
    return "world model" if isinstance(found, type) and issubclass(found, lit_pwm.WorldModelPretraining) else None


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
    resolved = resolve_configs(argv)
    given = given_options(resolved)
    options = renewed_options(given)
    check_ranges(options)
    program, sys.argv = sys.argv, [sys.argv[0], *renewed_argv(resolved, given)]
    try:
        with renewing_configs(options):
            return CLI(
                LightningModule,
                LightningDataModule,
                subclass_mode_model=True,
                subclass_mode_data=True,
                auto_configure_optimizers=False,
                seed_everything_default=0,
                save_config_callback=SaveConfigWhenTrainingStarts,
                trainer_defaults={"max_epochs": -1},
                parser_kwargs={"exit_on_error": False, "allow_abbrev": False},
                run=run,
            )
    except argparse.ArgumentError as error:
        raise own_error(error) or LitPWMError(diagnose(options) or parser_error(error)) from None
    except (LitPWMError, BrokenPipeError):
        raise
    except Exception as error:
        if (told := explain(error, options)) is None:
            raise
        raise told from (None if own_error(error) else error)  # its own cause would be told twice
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


def run(argv: list[str]) -> int:
    """Run a Trainer verb and return its exit code."""
    build(argv)
    return 0
