"""How well the continuation head foresees ends while a world model trains."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.types import STEP_OUTPUT

from lit_pwm.batch import Batch
from lit_pwm.errors import LitPWMError
from lit_pwm.measures.continuation_score import ContinuationScore, scores_of
from lit_pwm.models.accumulation import accumulation_dtype
from lit_pwm.pretraining import WorldModelPretraining
from lit_pwm.runtime.atomic import replacing
from lit_pwm.updates.binding import source_of

RECORD = "continuation.json"
FORMAT_VERSION = 1


class ContinuationScores(Callback):
    """Logs `val/continuation_brier` and `val/continuation_brier_base_rate`, also for each task (`.../TASK`).

    The head's Brier score on held-out slices, and that of always predicting the training data's rate of ends
    (`lit_pwm.measures.continuation_score`). The reliability curve of the last validation is in `continuation.json` in
    the run's folder (`default_root_dir`). Where the world model has no continuation head, or a
    datamodule of one's own has no `termination_rates`, it does nothing.

    Hooks: `on_validation_epoch_start`, `on_validation_batch_end`, `on_validation_epoch_end`; nothing of it is in
    checkpoints.
    """

    def __init__(self) -> None:
        self._metric: ContinuationScore | None = None

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start anew: the validation before may have been broken off, and the next model may have other tasks."""
        self._metric = None

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: STEP_OUTPUT,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Add the batch."""
        if not isinstance(pl_module, WorldModelPretraining):
            raise LitPWMError(
                f"ContinuationScores measures world models in pre-training, but the Trainer fits a "
                f"{type(pl_module).__name__}. Remove the callback from trainer.callbacks."
            )
        model, rates = pl_module.world_model, getattr(source_of(pl_module), "termination_rates", None)
        if model.continuation_head is None or rates is None or trainer.sanity_checking:  # before it knows of ends
            return
        if self._metric is None:
            metric = ContinuationScore(rates(), model.task_names, accumulation_dtype(pl_module.device))
            self._metric = metric.to(pl_module.device)
        self._metric.update(model, batch)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the scores, which the metric reduces over ranks, and write the record."""
        if (metric := self._metric) is None:
            return
        with metric.sync_context():
            records = metric.records()
        pl_module.log_dict({f"val/{key}": value for key, value in scores_of(records).items()}, sync_dist=True)
        if trainer.is_global_zero and not cast("Any", trainer).fast_dev_run:
            path = Path(trainer.default_root_dir) / RECORD
            with replacing(path, "The record of the continuation head's scores") as beside:
                content = {"format": FORMAT_VERSION, "updates": trainer.global_step, "tasks": records}
                beside.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
