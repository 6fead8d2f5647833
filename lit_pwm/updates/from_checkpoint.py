"""What both LightningModules share of checkpoints: networks come from the file that a run goes on from."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any, Self

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn

from lit_pwm.batch import DataSource
from lit_pwm.checkpoints.migration import BEING_LOADED
from lit_pwm.checkpoints.native import description_of
from lit_pwm.checkpoints.reading import read_checkpoint
from lit_pwm.errors import LitPWMError
from lit_pwm.provenance import versions
from lit_pwm.updates.checkpoint_io import write_whole_checkpoints


class BuiltFromCheckpoint(LightningModule):
    """A module whose networks are built when it meets its data, or from the checkpoint that it is resumed from."""

    @property
    def is_built(self) -> bool:
        """Whether the networks exist yet."""
        raise NotImplementedError

    def setup(self, stage: str) -> None:
        """Have checkpoints written whole and read safely, in runs without any of our callbacks too."""
        super().setup(stage)
        write_whole_checkpoints(self.trainer)

    @property
    def checkpoint_to_restore(self) -> str | None:
        """The file that the run which is starting will be restored from, once `configure_model` has been called."""
        return None if self._trainer is None else _path_of_run(self.trainer)

    @property
    def is_resumed(self) -> bool:
        """In `on_load_checkpoint`: whether training goes on; else the networks are only loaded."""
        return self._trainer is not None and self.trainer.state.fn == TrainerFn.FITTING

    @property
    def restored_path(self) -> str:
        """In `on_load_checkpoint`: the file, for errors."""
        return BEING_LOADED if self._trainer is None else str(self.trainer.ckpt_path)

    def provenance(self) -> dict[str, Any]:
        """What a checkpoint says of where its numbers come from: versions, and what tells the data from other data."""
        data = getattr(self._trainer, "datamodule", None)
        found = {"fingerprint": getattr(data, "fingerprint", None)}
        if isinstance(data, DataSource):
            found["tasks"] = list(data.tasks)
        return {"versions": versions(), "data": found}

    def keep_plain(self, **options: Any) -> None:
        """Keep options that are objects as hyper-parameters, as the plain values that are given here."""
        self.save_hyperparameters(plain(options))

    @classmethod
    def load_from_checkpoint(cls, checkpoint_path: Any, *args: Any, **kwargs: Any) -> Self:
        """As Lightning's, of files of older formats too; see `LightningModule.load_from_checkpoint`."""
        checkpoint = read_checkpoint(checkpoint_path)
        description_of(checkpoint, checkpoint_path)
        options = dict(checkpoint.get(cls.CHECKPOINT_HYPER_PARAMS_KEY) or {})
        options = {name: value for name, value in options.items() if not name.startswith("_")}
        return super().load_from_checkpoint(checkpoint_path, *args, **(options | kwargs))


def plain(value: Any) -> Any:
    """A value whose tuples are lists, as files of runs hold it: YAML's safe reader knows no tuples."""
    if isinstance(value, Mapping):
        return {name: plain(inner) for name, inner in value.items()}
    return [plain(inner) for inner in value] if isinstance(value, (list, tuple)) else value


def require_file_of_tasks(checkpoint_tasks: Sequence[str] | None, **files: object) -> None:
    """Refuse names of the tasks in a file where there is no file.

    Raises:
        LitPWMError: names are given, and none of the options that name files.
    """
    if checkpoint_tasks is not None and not any(files.values()):
        options = " or ".join(f"model.{name}" for name in files)
        raise LitPWMError(
            f"model.checkpoint_tasks is {list(checkpoint_tasks)}: it names the tasks in the file of {options}, which "
            f"is not set. Name the file, or leave model.checkpoint_tasks out."
        )


def _path_of_run(trainer: Trainer) -> str | None:
    """The checkpoint that `Trainer._run` was given, on whose way we are.

    Lightning builds networks before it tells anybody of the file (`trainer.ckpt_path` is still the last run's), and
    wraps them for several processes right after restoring: they cannot be built later. Were its frame not found,
    networks would be built as for a fresh run, and the checkpoint's take their place.
    """
    frame = sys._getframe()
    while (frame := frame.f_back) is not None:
        if frame.f_code is Trainer._run.__code__ and frame.f_locals.get("self") is trainer:
            path = frame.f_locals.get("ckpt_path")
            return None if path is None else str(path)
    return None


def arrange_by_group(checkpoint: Mapping[str, Any], groups: Sequence[Sequence[tuple[str, int]]], path: str) -> None:
    """Bring the groups of a checkpoint's optimizer states into this run's order, by their names, in place.

    Args:
        checkpoint: as it was read.
        groups: of each optimizer, in this run's order: names and numbers of parameters.
        path: where the checkpoint was read from.

    Raises:
        LitPWMError: a group is not there, or holds another number of parameters.
    """
    for state, wanted in zip(checkpoint.get("optimizer_states") or (), groups, strict=False):
        found = {group.get("name"): group for group in state["param_groups"]}
        if None in found:
            continue  # written by a module that does not name them: by their order, as torch does
        for name, count in wanted:
            held = len(found[name]["params"]) if name in found else None
            if held != count:
                raise LitPWMError(
                    f"The checkpoint {path!r} holds the state of an optimizer with groups of parameters called "
                    f"{', '.join(map(str, found))}, and this run's has a group {name!r} of {count} tensors, which "
                    f"{'is not among them' if held is None else f'has {held} there'}. Resume with the class that wrote "
                    f"it, or start from its weights."
                )
        state["param_groups"] = [found[name] for name, _ in wanted]
