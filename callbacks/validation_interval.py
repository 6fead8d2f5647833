"""When something is due that is done as often as validation."""

from __future__ import annotations

import math
import time
from typing import Any, cast

from lightning.pytorch import Trainer


def validates(trainer: Trainer) -> bool:
    """Whether the Trainer has anything to validate on while it fits."""
    counts = trainer.num_val_batches
    return trainer.enable_validation and bool(sum(counts) if isinstance(counts, list) else counts)


class ValidationInterval:
    """Whether the update just made is one after which the Trainer validates, or would if it could."""

    def __init__(self) -> None:
        self._started = time.monotonic()

    def reached(self, trainer: Trainer) -> bool:
        """Ask it at the end of each update, `on_train_batch_end`; the answer is the same on all ranks."""
        loop, epochs = trainer.fit_loop.epoch_loop, trainer.check_val_every_n_epoch
        seconds = cast("Any", trainer)._val_check_time_interval
        if seconds is not None:
            late = trainer.strategy.broadcast(time.monotonic() - self._started >= seconds)
            if late:
                self._started = time.monotonic()
            return bool(late)
        if epochs is not None and (trainer.current_epoch + 1) % epochs:
            return False
        every = cast("float", trainer.val_check_batch)
        if math.isinf(every):
            return loop.batch_progress.is_last_batch
        done = loop.total_batch_idx if epochs is None else loop.batch_idx
        return (done + 1) % int(every) == 0
