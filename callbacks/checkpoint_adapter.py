"""Files of another format beside Lightning's checkpoints, while a run trains."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.fabric.plugins import CheckpointIO
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from lit_pwm.checkpoints.formats.base import WORLD_MODEL, Format, file_beside
from lit_pwm.checkpoints.formats.format_registry import FORMATS, format_named
from lit_pwm.checkpoints.migration import DESCRIPTION_KEY
from lit_pwm.checkpoints.writing import write_tensors
from lit_pwm.errors import LitPWMError
from lit_pwm.runtime.atomic import replacing_part
from lit_pwm.updates.checkpoint_io import write_whole_checkpoints


class CheckpointAdapter(Callback):
    """Writes each of the run's checkpoints as a file of another format too, for use elsewhere.

    Beside `last.ckpt` lies `last.tdmpc2.pt`: written whole right after it, replaced and removed with it. Runs are never
    resumed from such files, which hold no state of training. What the format cannot hold is refused when training
    starts (`lit_pwm.checkpoints.formats`, docs/checkpoints.md). It changes nothing of the training; several may be
    given, one for each format, in any order. Of several ranks, the first writes. Hooks: `setup`, `on_fit_start`.

    Args:
        format: name of the format, for example `tdmpc2`, `pwm-model` or `state-dict`.
        partial: leave out optional parts of the format that the run does not have, such as TD-MPC2's Q functions.

    Raises:
        LitPWMError: there is no such format; or, when training starts, it cannot hold the run's networks; or a file
            cannot be written.
    """

    def __init__(self, format: str, partial: bool = False) -> None:
        super().__init__()
        self.format, self.partial = format_named(format), partial
        if self.format.name == "native":
            others = ", ".join(one.name for one in FORMATS if one.name != "native")
            raise LitPWMError(
                f"CheckpointAdapter has format 'native', which the run's own checkpoints have. Accepted: {others}."
            )

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Have the Trainer write both."""
        if stage != "fit":
            return
        if "://" in str(trainer.default_root_dir):
            raise LitPWMError(
                f"CheckpointAdapter writes files beside checkpoints in a local folder, and trainer.default_root_dir is "
                f"{trainer.default_root_dir!r}. Give a local one, and convert its checkpoints."
            )
        write_whole_checkpoints(trainer)
        if not _writes(trainer.strategy.checkpoint_io, self.format):
            trainer.strategy.checkpoint_io = _WritesBeside(trainer.strategy.checkpoint_io, self, pl_module)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuse at once what could not be written later."""
        checkpoint: dict[str, Any] = {"state_dict": pl_module.state_dict()}
        pl_module.on_save_checkpoint(checkpoint)
        self.content(checkpoint, pl_module)

    def content(self, checkpoint: Mapping[str, Any], pl_module: LightningModule) -> dict[str, Any]:
        """What the file of the format holds, on the CPU.

        Args:
            checkpoint: Lightning's.
            pl_module: the module, for the world model of a policy whose checkpoints are without it.
        """
        if DESCRIPTION_KEY not in checkpoint:
            raise LitPWMError(
                f"CheckpointAdapter writes networks that a checkpoint describes, and those of "
                f"{type(pl_module).__name__} describe none. Train a WorldModelPretraining or a PolicyLearning."
            )
        model: Any = pl_module.world_model
        state = {f"{WORLD_MODEL}{key}": value for key, value in model.state_dict().items()} | checkpoint["state_dict"]
        state = {key: value.detach().cpu() if isinstance(value, Tensor) else value for key, value in state.items()}
        native = {**checkpoint, "state_dict": state}
        return self.format.write(native, "of this run", self.partial)


class _WritesBeside(CheckpointIO):
    """Reads and writes as another does, and writes and removes the adapter's files too."""

    def __init__(self, inner: CheckpointIO, adapter: CheckpointAdapter, pl_module: LightningModule) -> None:
        self.inner, self.adapter, self.pl_module = inner, adapter, pl_module

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """Lightning's first, so that it is there whatever happens to the other."""
        self.inner.save_checkpoint(checkpoint, path, storage_options)
        content = self.adapter.content(checkpoint, self.pl_module)
        with replacing_part(self._beside(path), f"The {self.adapter.format.name} file beside the checkpoint") as part:
            write_tensors(content, part)

    def load_checkpoint(self, path: Any, *arguments: Any, **options: Any) -> dict[str, Any]:
        """Lightning's."""
        return self.inner.load_checkpoint(path, *arguments, **options)

    def remove_checkpoint(self, path: Any) -> None:
        """Both."""
        self.inner.remove_checkpoint(path)
        self._beside(path).unlink(missing_ok=True)

    def _beside(self, path: Any) -> Path:
        return file_beside(Path(path), self.adapter.format)


def _writes(writer: CheckpointIO, kind: Format) -> bool:
    while isinstance(writer, _WritesBeside):
        if writer.adapter.format is kind:
            return True
        writer = writer.inner
    return False
