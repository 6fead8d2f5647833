"""How checkpoints are written, beside their place and then renamed, and read, without running what they hold."""

from __future__ import annotations

from typing import Any

from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.fabric.utilities.types import _PATH
from lightning.pytorch import Trainer

from lit_pwm.checkpoints.reading import read_checkpoint
from lit_pwm.checkpoints.writing import write_tensors
from lit_pwm.runtime.atomic import replacing_part


class WholeCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint into its own folder under another name, and renames it when all of it is on the disk.

    The file of that name that was there before stays until then, whatever happens: a full disk, a killed process, a
    crashed machine. Lightning's own writer goes through the folder for temporary files, which may be small or on
    another disk. Files under a URL (`s3://...`) are left to Lightning.

    Raises:
        LitPWMError: the file cannot be written; it says why, and how much room its disk has. Or a file that is read is
            missing, is no checkpoint, holds Python objects, or is not as it was written.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, object], path: _PATH, storage_options: object | None = None
    ) -> None:
        """Write a checkpoint."""
        if "://" in str(path) or storage_options is not None:
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        with replacing_part(path, "The checkpoint") as beside:
            write_tensors(checkpoint, beside)

    def load_checkpoint(self, path: _PATH, *arguments: Any, **options: Any) -> dict[str, Any]:
        """Read a checkpoint whose bytes are those that were written, onto the CPU, without running anything in it."""
        return read_checkpoint(str(path))


def write_whole_checkpoints(trainer: Trainer) -> None:
    """Let a Trainer write and read its checkpoints so, unless it was given a way of its own."""
    if type(trainer.strategy.checkpoint_io) is TorchCheckpointIO:
        trainer.strategy.checkpoint_io = WholeCheckpointIO()
