"""Our own checkpoints, as Lightning writes them: nothing is to be converted."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lit_pwm.checkpoints.formats.base import Format, TaskNames
from lit_pwm.checkpoints.formats.task_names import require_same_names
from lit_pwm.checkpoints.migration import DESCRIPTION_KEY


class OwnFile(Format):
    """A checkpoint of a run, or one that `convert` made: weights beside a plain description of the networks."""

    name = "native"
    title = "a checkpoint of lit_pwm"
    suffix = ".ckpt"

    def recognises(self, raw: Mapping[Any, Any]) -> bool:
        """By its description."""
        return DESCRIPTION_KEY in raw

    def read(self, raw: Mapping[Any, Any], path: str | Path, tasks: TaskNames | None) -> dict[str, Any]:
        """As it is; `lit_pwm.checkpoints.native.description_of` checks it, and migrates one of an older version.

        Raises:
            LitPWMError: it names its tasks, and otherwise than `tasks`.
        """
        checkpoint = dict(raw)
        if tasks is not None:
            require_same_names(checkpoint[DESCRIPTION_KEY], tasks, path)
        return checkpoint

    def write(self, native: Mapping[str, Any], path: str | Path, partial: bool = False) -> dict[str, Any]:
        """As it is."""
        return dict(native)
