"""Open-loop errors in decoded observations while a world model trains."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.types import STEP_OUTPUT

from lit_pwm.batch import Batch
from lit_pwm.errors import LitPWMError
from lit_pwm.measures.decoded_error import DecodedError
from lit_pwm.models.accumulation import accumulation_dtype
from lit_pwm.options import Count, Length, checked
from lit_pwm.pretraining import WorldModelPretraining


class DecodedErrors(Callback):
    """Logs `val/decoded_error_k` and, for each task, `val/decoded_error_k/TASK` and `val/reward_error_k/TASK`.

    Latent errors depend on the encoder; these can be compared between world models (`lit_pwm.measures.decoded_error`).
    Hooks: `on_validation_batch_end`, `on_validation_epoch_end`; nothing of it is in checkpoints.

    Args:
        steps: numbers of open-loop steps; those beyond the validation slices' horizon are left out.
        samples: rollouts to average, for world models that sample.
    """

    @checked
    def __init__(self, steps: Annotated[Sequence[Count], Length(1)] = (1, 4, 16), samples: Count = 1) -> None:
        self.steps, self.samples = tuple(steps), samples
        self._metric: DecodedError | None = None

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
                f"DecodedErrors measures world models in pre-training, but the Trainer fits a "
                f"{type(pl_module).__name__}. Remove the callback from trainer.callbacks."
            )
        if self._metric is None:
            model = pl_module.world_model
            metric = DecodedError(
                model.task_names,
                model.latent_dim,
                model.obs_dim,
                self.steps,
                self.samples,
                dtype=accumulation_dtype(pl_module.device),
            )
            self._metric = metric.to(pl_module.device)
        self._metric.update(pl_module.world_model, batch)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the errors, which the metrics reduce over ranks, and start anew."""
        if self._metric is None or not isinstance(pl_module, WorldModelPretraining):
            return
        # The module logs the means over tasks of its own metric after this, and resets it.
        with pl_module.open_loop.sync_context():
            per_task = pl_module.open_loop.per_task()
        rewards = {
            f"val/{key}/{task}": value
            for task, errors in per_task.items()
            for key, value in errors.items()
            if key.startswith("reward_error_") and "copy_last" not in key
        }
        pl_module.log_dict(rewards, sync_dist=True)
        pl_module.log_dict({f"val/{key}": value for key, value in self._metric.compute().items()}, sync_dist=True)
        self._metric = None  # the next model may have other tasks
