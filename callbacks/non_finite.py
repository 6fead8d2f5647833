"""What is kept when a loss stops being finite."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from lit_pwm.errors import NonFiniteLossError


class NonFiniteGuard(Callback):
    """Saves the batch and the last good weights when a training step meets a loss or gradient that is not finite.

    Steps raise `NonFiniteLossError` before anything is stepped, so the weights at that moment are the last good ones.
    The files `non_finite_batch.pt` (this rank's batch) and `last_good.ckpt` lie in the run's log directory. Under
    several ranks, each that meets the error saves its batch and rank zero's weights are left to its last checkpoint.
    """

    def __init__(self) -> None:
        self._batch: Any = None

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Remember the batch; no copy is made."""
        self._batch = batch

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Forget it."""
        self._batch = None

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Write the batch, and in a run of one process the weights."""
        if not isinstance(exception, NonFiniteLossError) or self._batch is None:
            return
        folder = Path(trainer.log_dir or trainer.default_root_dir)
        folder.mkdir(parents=True, exist_ok=True)
        rank = f"_rank{trainer.global_rank}" if trainer.world_size > 1 else ""
        batch_file = folder / f"non_finite_batch{rank}.pt"
        torch.save({"batch": self._batch, "global_step": trainer.global_step}, batch_file)
        saved = f"The batch was saved as {str(batch_file)!r}"
        if trainer.world_size == 1:
            checkpoint = folder / "last_good.ckpt"
            trainer.save_checkpoint(checkpoint)
            saved += f" and the weights before it as {str(checkpoint)!r}"
        exception.args = (f"{exception.args[0]} {saved}.",)
