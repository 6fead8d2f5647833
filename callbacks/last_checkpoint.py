"""The state after the last update, as `last.ckpt`."""

from __future__ import annotations

import time
from typing import Any, cast

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.types import STEP_OUTPUT

from callbacks.validation_interval import ValidationInterval, validates
from lit_pwm.batch import Batch
from lit_pwm.errors import RunStopped
from lit_pwm.options import Count, Positive, checked
from lit_pwm.updates.checkpoint_io import write_whole_checkpoints

_LOOKS_AT_THE_CLOCK = 10  # updates, of which the ranks agree on one


class LastCheckpoint(ModelCheckpoint):
    """Keeps `last.ckpt` as often as the Trainer validates, now and then, at the end, and when a run is stopped.

    What a crash or `kill -9` costs is bounded by the Trainer's `val_check_interval` in updates (also where there is
    nothing to validate on) and by `every_minutes` in time, whichever comes first; a validation in progress is added.
    The file is replaced when the new one is whole (`WholeCheckpointIO`, which this installs for all
    checkpoints of its Trainer).

    `ModelCheckpoint(monitor=..., save_last=True)` writes last.ckpt only when the monitored metric improved, so that its
    last checkpoint is the best one under another name. Use this beside a monitoring `ModelCheckpoint` without
    `save_last`. The file lies in the run's folder of checkpoints.

    Args:
        every_n_updates: updates between saves beside those at validation; as often as validation if not given.
        every_minutes: minutes after which it is saved in any case.

    Raises:
        LitPWMError: one of them is not above 0; or, during training, a checkpoint cannot be written.
    """

    @checked
    def __init__(self, every_n_updates: Count | None = None, every_minutes: Positive = 10.0) -> None:
        super().__init__(
            filename="last",
            save_top_k=1,
            enable_version_counter=False,
            save_on_train_epoch_end=False,
        )
        self.every_n_updates, self.every_minutes = every_n_updates, every_minutes
        self._interval, self._saved_at = ValidationInterval(), time.monotonic()
        self._has_trained, self._stops = False, False

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Find the folder, and have checkpoints written whole."""
        super().setup(trainer, pl_module, stage)
        write_whole_checkpoints(trainer)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self._interval, self._saved_at, self._has_trained = ValidationInterval(), time.monotonic(), False
        self._stops = False

    def save_this_update(self) -> None:
        """Save at the end of the update in flight, unless a validation follows; all ranks must ask."""
        self._stops = True

    def has_saved(self, trainer: Trainer) -> bool:
        """Whether the state after the last update has been saved."""
        return trainer.global_step == self._last_global_step_saved

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: STEP_OUTPUT, batch: Batch, batch_idx: int
    ) -> None:
        """Save where it is due and no validation follows, which would save by itself."""
        self._has_trained = True
        at_validation = self._interval.reached(trainer)
        if at_validation and validates(trainer):
            return
        due = at_validation if self.every_n_updates is None else trainer.global_step % self.every_n_updates == 0
        if due or self._stops or self._is_late(trainer):
            self._save(trainer)

    def _is_late(self, trainer: Trainer) -> bool:
        late = time.monotonic() - self._saved_at >= 60 * self.every_minutes
        if trainer.world_size == 1:
            return late
        return trainer.global_step % _LOOKS_AT_THE_CLOCK == 0 and bool(trainer.strategy.broadcast(late))

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save what came after the last validation."""
        self._save(trainer)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Save what a run that was stopped has reached."""
        if isinstance(exception, RunStopped) or (isinstance(exception, KeyboardInterrupt) and trainer.world_size == 1):
            self.save_stopped(trainer)

    def save_stopped(self, trainer: Trainer) -> None:
        """Save the state after the last update, if it is whole: within an update, what was saved before is kept."""
        progress = cast("Any", trainer.fit_loop.epoch_loop.batch_progress.current)
        whole = progress.processed == progress.ready
        if trainer.state.fn == TrainerFn.FITTING and self._has_trained and whole and not trainer.sanity_checking:
            self._save(trainer)

    def _save(self, trainer: Trainer) -> None:
        if not (self.has_saved(trainer) or cast("Any", trainer).fast_dev_run):
            self._save_none_monitor_checkpoint(trainer, self._monitor_candidates(trainer))

    def _save_checkpoint(self, trainer: Trainer, filepath: str) -> None:
        super()._save_checkpoint(trainer, filepath)
        self._saved_at = time.monotonic()
