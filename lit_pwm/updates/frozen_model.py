"""Which frozen world model a run's checkpoints refer to instead of holding it."""

from __future__ import annotations

from collections.abc import Callable, MutableMapping
from typing import Any

from torch import nn

from lit_pwm.checkpoints.references import fingerprint_of, leave_out, matching
from lit_pwm.errors import LitPWMError


class FrozenModel:
    """Keeps track of a world model that must stay the one in its file.

    Args:
        file: holds it.
        fingerprint: of the model in that file; None where it has not been looked at.
    """

    def __init__(self, file: str | None, fingerprint: str | None = None) -> None:
        self.file, self.fingerprint = file, fingerprint
        self._seen: list[tuple[int, int]] | None = None

    def check(self, world_model: nn.Module, load: Callable[[str], nn.Module]) -> None:
        """Make sure that a model is the one in the file; it reads nothing again while no tensor was written to.

        Args:
            world_model: as the run has it.
            load: reads a world model from a file.

        Raises:
            LitPWMError: there is no such file, or the model is another one.
        """
        if (file := self.file) is None:
            raise LitPWMError(
                "save_world_model is 'reference', and this run knows no file that holds its world model: it was not "
                "started on one. Name it with --world-model FILE, or save it with each checkpoint: "
                "--model.save_world_model full."
            )
        seen = [(tensor.data_ptr(), tensor._version) for tensor in world_model.state_dict(keep_vars=True).values()]
        if seen == self._seen:
            return
        found = fingerprint_of(world_model)
        if self.fingerprint is None:
            matching(found, file, "The policy", load)
        elif found != self.fingerprint:
            raise LitPWMError(
                f"save_world_model is 'reference', and the world model of this run is no longer the one in {file!r}: "
                f"it was trained further, or grew. Save it with each checkpoint: --model.save_world_model full."
            )
        self.fingerprint, self._seen = found, seen

    def leave_out(self, checkpoint: MutableMapping[str, Any], description: dict[str, Any]) -> None:
        """Take the model, which has been checked, out of a checkpoint that is about to be written."""
        if self.fingerprint is not None and self.file is not None:
            leave_out(checkpoint, description, self.fingerprint, self.file)
