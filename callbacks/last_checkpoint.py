"""The state after the last update, as `last.ckpt`."""

from __future__ import annotations

from typing import Any, cast

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint


class LastCheckpoint(ModelCheckpoint):
    """Keeps `last.ckpt` at each validation, at the end of training, and when Ctrl-C interrupts it.

    `ModelCheckpoint(monitor=..., save_last=True)` writes last.ckpt only when the monitored metric improved, so that its
    last checkpoint is the best one under another name. Use this beside a monitoring `ModelCheckpoint` without
    `save_last`. The file lies in the run's folder of checkpoints.
    """

    def __init__(self) -> None:
        super().__init__(
            filename="last",
            save_top_k=1,
            enable_version_counter=False,
            save_on_train_epoch_end=False,
        )

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save what came after the last validation."""
        self._save(trainer)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Save what an interrupted run has reached."""
        if isinstance(exception, KeyboardInterrupt) and trainer.training and trainer.world_size == 1:
            self._save(trainer)

    def _save(self, trainer: Trainer) -> None:
        if trainer.global_step != self._last_global_step_saved and not cast("Any", trainer).fast_dev_run:
            self._save_none_monitor_checkpoint(trainer, self._monitor_candidates(trainer))
