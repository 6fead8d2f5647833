"""Settings of what experiments train: shipped configs, stacked and parsed as the command line does."""

from __future__ import annotations

import argparse
import functools
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from jsonargparse import ActionConfigFile, Namespace
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.cli import LightningArgumentParser

from lit_pwm.errors import LitPWMError
from lit_pwm.paths import config_root

WORLD_MODEL = ("configs/pretrain.yaml", "configs/pretrain_tiny.yaml", "configs/world_model/mlp_tiny.yaml")
"""A small world model, which trains in minutes on a core."""
POLICY = ("configs/policy_learning.yaml", "configs/policy_learning_tiny.yaml", "configs/policy/mlp_tiny.yaml")
"""A small policy."""
DEMO_WORLD_MODEL = (*WORLD_MODEL, "configs/demo/world_model.yaml")
DEMO_POLICY = (*POLICY, "configs/demo/policy.yaml")


class Recipe:
    """Stacked configs with options over them.

    Args:
        configs: shipped ones, as `--config` names them, later ones over earlier ones. Files of the same names in the
            current folder are not looked at, so that an experiment is the same wherever it is run.
        options: names as on the command line, such as `data.batch_size`, → values that JSON can hold; None is left out.

    Raises:
        LitPWMError: there is no such config, or an option or a value is not accepted.
    """

    def __init__(self, configs: Iterable[str], options: Mapping[str, Any] | None = None) -> None:
        argv = [f"--config={config_root() / name.removeprefix('configs/')}" for name in configs]
        argv += [f"--{name}={_text(value)}" for name, value in (options or {}).items() if value is not None]
        try:
            self.parsed: Namespace = _parser().parse_args(argv)
        except argparse.ArgumentError as error:
            raise LitPWMError(f"A recipe of {' '.join(argv)} is not accepted: {error}") from error

    def __getitem__(self, name: str) -> Any:
        """The value of an option, by the name that the command line has for it."""
        found, part = self._place(name)
        return found[part]

    def __setitem__(self, name: str, value: Any) -> None:
        """Give an option a value, which may be an object."""
        found, part = self._place(name)
        found[part] = value

    def _place(self, name: str) -> tuple[Any, str]:
        """What holds an option, within the `init_args` that the command line lets one leave out, and its name there."""
        *above, last = name.split(".")
        found: Any = self.parsed
        for part in above:
            found = found[part]
            found = found["init_args"] if "class_path" in found else found
        return found, last

    def options_of(self, section: str) -> dict[str, Any]:
        """The options of `model` or `data` as their class takes them; components are described, not made."""
        return self.parsed[section].init_args.as_dict()

    def callback(self, name: str) -> Namespace:
        """The options of the Trainer's callback of this class, which may be changed."""
        return next(entry.init_args for entry in self.parsed.trainer.callbacks if entry.class_path.endswith(name))

    def made(
        self, callbacks: Iterable[Callback] = (), **trainer: Any
    ) -> tuple[LightningModule, LightningDataModule, Trainer]:
        """New objects.

        Args:
            callbacks: of the Trainer, after those of the configs.
            trainer: options of the Trainer that are objects, or this run's own.

        Raises:
            LitPWMError: what a class refuses of its options.
        """
        try:
            parser = _parser()
            new = getattr(parser, "instantiate", parser.instantiate_classes)(self.parsed)  # as newer versions call it
        except ValueError as error:  # jsonargparse's, around what a class has raised
            refusals = (cause for cause in _causes(error) if isinstance(cause, LitPWMError))
            raise next(refusals, error) from None
        given = new.trainer.as_dict() if isinstance(new.trainer, Namespace) else dict(new.trainer)
        both = [*(given.pop("callbacks", None) or ()), *callbacks]
        return new.model, new.data, Trainer(**given | trainer, callbacks=both)


@functools.cache
def _parser() -> LightningArgumentParser:
    parser = LightningArgumentParser(exit_on_error=False)
    parser.add_argument("--config", action=ActionConfigFile)
    parser.add_argument("--seed_everything", type=int | None, default=None)
    parser.add_lightning_class_args(Trainer, "trainer")
    parser.add_lightning_class_args(LightningModule, "model", subclass_mode=True)
    parser.add_lightning_class_args(LightningDataModule, "data", subclass_mode=True)
    return parser


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
