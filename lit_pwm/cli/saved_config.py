"""The file config.yaml of a run: written when it trains, and whole or not at all."""

from __future__ import annotations

from typing import Any, cast

from jsonargparse import Namespace
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.cli import LightningArgumentParser, SaveConfigCallback

from lit_pwm.errors import LitPWMError
from lit_pwm.runtime.atomic import replacing


class SaveConfigWhenTrainingStarts(SaveConfigCallback):
    """Writes config.yaml once everything has been checked, so that a run refused at its start leaves nothing behind."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Write nothing yet."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the config beside the logs."""
        self.overwrite = bool(trainer.ckpt_path)  # a run that goes on in its own folder
        self.parser = cast("LightningArgumentParser", _SavesWhole(self.parser))
        try:
            super().setup(trainer, pl_module, "fit")
        except RuntimeError as error:
            raise LitPWMError(
                f"The folder {trainer.log_dir!r} holds the config of another run, which is not overwritten. Name "
                f"another trainer.default_root_dir, go on with that run by --ckpt_path last, or let trainer.logger "
                f"number runs."
            ) from error


class _SavesWhole:
    """A parser as Lightning uses it to write a config, which is written beside its place and renamed."""

    def __init__(self, parser: LightningArgumentParser) -> None:
        self._parser = parser

    def save(self, config: Namespace, path: str, **options: Any) -> None:
        """Write the config, whole or not at all."""
        with replacing(path, "The run's config") as beside:
            self._parser.save(config, beside, **options | {"overwrite": True})
