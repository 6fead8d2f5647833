"""What is kept when a loss stops being finite."""

from __future__ import annotations

from pathlib import Path

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.types import STEP_OUTPUT

from lit_pwm.batch import Batch
from lit_pwm.errors import LitPWMError, NonFiniteLossError
from lit_pwm.runtime.atomic import replacing_part
from lit_pwm.updates.checkpoint_io import write_tensors, write_whole_checkpoints


class NonFiniteGuard(Callback):
    """Saves the batch and the last good weights when an update meets a loss or gradient that is not finite.

    Such an update is undone before `NonFiniteLossError` is raised, on all ranks (`lit_pwm.updates.atomic_update`): what
    is there at that moment is the state after the update before it, and nothing in it has seen the batch. The files
    `non_finite_batch.pt` (of several ranks each its own, with `_rankN` behind the name) and `last_good.ckpt` lie in the
    run's log directory; a run resumed from `last_good.ckpt` goes on with the batch after the bad one.
    """

    def __init__(self) -> None:
        self._batch: object = None

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Batch, batch_idx: int) -> None:
        """Remember the batch; no copy is made."""
        self._batch = batch

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: STEP_OUTPUT, batch: Batch, batch_idx: int
    ) -> None:
        """Forget it."""
        self._batch = None

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Write the batch and the checkpoint; the error comes on all ranks, which save together."""
        if not isinstance(exception, NonFiniteLossError) or self._batch is None:
            return
        folder = Path(trainer.log_dir or trainer.default_root_dir)
        rank = f"_rank{trainer.global_rank}" if trainer.world_size > 1 else ""
        batch_file, checkpoint = folder / f"non_finite_batch{rank}.pt", folder / "last_good.ckpt"
        said = f"The batch was saved as {str(batch_file)!r} and the state before it as {str(checkpoint)!r}."
        try:
            with replacing_part(batch_file, "The batch with the non-finite loss") as beside:
                write_tensors({"batch": self._batch, "global_step": trainer.global_step}, beside)
            write_whole_checkpoints(trainer)
            trainer.save_checkpoint(checkpoint)
        except LitPWMError as error:  # a full disk, which is not what ended the run
            said = f"Nor could all be saved that shows why: {str(error)[:1].lower()}{str(error)[1:]}"
        exception.args = (f"{exception.args[0]} {said}",)
