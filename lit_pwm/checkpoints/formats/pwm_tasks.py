"""Which tasks a file of PWM's or Flow-MBPO-PWM's is of: its world model's rows, and those of its policy."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lit_pwm.checkpoints.formats.base import TaskNames
from lit_pwm.checkpoints.formats.task_names import names_in, names_of_rows
from lit_pwm.errors import LitPWMError


def tasks_of(raw: Mapping[Any, Any], tasks: TaskNames | None, path: str | Path) -> tuple[TaskNames | None, list[str]]:
    """The names of the rows, where they are known before the file is read, and those of the tasks that were trained."""
    embedding = raw["world_model"].get("_task_emb.weight")
    rows = len(embedding) if getattr(embedding, "ndim", 0) else 1
    said = raw.get("task_set")
    listed = isinstance(said, (list, tuple)) and len(said) == rows and all(isinstance(name, str) for name in said)
    own = list(said) if listed and isinstance(said, (list, tuple)) else None
    if tasks is None:
        return own, []
    named = list(names_in(tasks))
    if len(named) >= rows or "actor" not in raw:
        if own is not None and named != own:
            raise LitPWMError(
                f"The checkpoint {str(path)!r} names its own tasks, {', '.join(own)}, and these are to be "
                f"{', '.join(named)}. Leave the names out."
            )
        return named, named
    known = names_of_rows(rows, None, path)[0] if own is None else own
    if strange := [name for name in named if name not in known]:
        raise LitPWMError(
            f"The policy in the checkpoint {str(path)!r} is to be one for {', '.join(strange)}, and its world model "
            f"knows {', '.join(known)}. Name the tasks that the policy was trained for."
        )
    return own, named
