"""Which tasks the rows of a foreign file are: the known sets by their number, others by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lit_pwm.checkpoints.formats.base import TaskNames, notice
from lit_pwm.errors import LitPWMError
from lit_pwm.tasks.registry import TASK_SETS, spec_if_known

SETS_BY_SIZE = {len(TASK_SETS[name]): name for name in ("mt30", "mt80")}
"""Numbers of tasks that tell their set."""
Dims = tuple[int, int]


def names_in(tasks: TaskNames) -> tuple[str, ...]:
    """The names that are meant by a list, a text with commas, or a task set's name.

    Raises:
        LitPWMError: they are no texts, or one is named twice.
    """
    listed: Sequence[Any] = tasks.split(",") if isinstance(tasks, str) else list(tasks)
    if strange := [name for name in listed if not isinstance(name, str)]:
        raise LitPWMError(f"Tasks are named by texts, and {strange[0]!r:.80} is none.")
    names = tuple(name.strip() for name in listed if name.strip())
    if len(names) == 1 and names[0] in TASK_SETS:
        names = TASK_SETS[names[0]]
    if twice := [name for name in names if names.count(name) > 1]:
        raise LitPWMError(f"The task {twice[0]!r} is named twice in {', '.join(names)}. Name each row's task once.")
    if not names:
        raise LitPWMError("No task is named. Name the tasks in the order of the file's rows, with commas between.")
    return names


def known_widths(names: Sequence[str] | None) -> Dims | None:
    """The widest observation and action of tasks that lit_pwm knows; None where it does not know all of them."""
    specs = [spec_if_known(name) for name in names or ()]
    widths = [(spec.obs_dim, spec.action_dim) for spec in specs if spec is not None]
    if not widths or len(widths) < len(specs):
        return None
    return max(obs_dim for obs_dim, _ in widths), max(action_dim for _, action_dim in widths)


def names_of_rows(rows: int | None, tasks: TaskNames | None, path: str | Path) -> tuple[tuple[str, ...], bool]:
    """The names of a file's tasks, and whether its number of rows alone tells them.

    Args:
        rows: of its embedding; None for a file of a single task, which has none.
        tasks: as they were given.
        path: the file.

    Raises:
        LitPWMError: they are not known, or another number is given.
    """
    if tasks is not None:
        names = names_in(tasks)
        if len(names) != (rows or 1):
            raise LitPWMError(
                f"The checkpoint {str(path)!r} holds {_told(rows)}, and {len(names)} are named: {', '.join(names)}. "
                f"Name one for each row, in order."
            )
        return names, False
    if rows in SETS_BY_SIZE:
        return TASK_SETS[SETS_BY_SIZE[rows]], True
    known = " and ".join(f"{size} ({name.upper()})" for size, name in SETS_BY_SIZE.items())
    raise LitPWMError(
        f"The checkpoint {str(path)!r} holds {_told(rows)}, and its format does not name them; only {known} are told "
        f"by their number. Name them in the order of its rows: --tasks A,B on the command line, tasks=[...] in Python, "
        f"--model.checkpoint_tasks '[A, B]' in fit."
    )


def _told(rows: int | None) -> str:
    return (
        "the model of a single task (no task embedding)" if rows is None else f"{rows} task{'s' if rows != 1 else ''}"
    )


def tasks_with_widths(
    names: Sequence[str], widths: Dims, path: str | Path, action_dims: Sequence[int] | None = None
) -> dict[str, Dims]:
    """Name → (obs_dim, action_dim): those of tasks that lit_pwm knows, else what the file says or has room for.

    Args:
        names: of the tasks in order.
        widths: of the file's observations and actions.
        path: the file.
        action_dims: of each task, where the file says them.

    Raises:
        LitPWMError: a task is wider than the file.
    """
    tasks = {}
    for number, name in enumerate(names):
        spec = spec_if_known(name)
        if spec is None:
            tasks[name] = (widths[0], widths[1] if action_dims is None else action_dims[number])
            continue
        if spec.obs_dim > widths[0] or spec.action_dim > widths[1]:
            raise LitPWMError(
                f"The checkpoint {str(path)!r} holds observations of width {widths[0]} and actions of width "
                f"{widths[1]}, and its task {number} is to be {name!r}, which has {spec.obs_dim} and "
                f"{spec.action_dim}. Name the tasks that it was trained on, in order."
            )
        tasks[name] = (spec.obs_dim, spec.action_dim)
        if len(names) == 1 and tasks[name] != widths:
            notice(
                f"The checkpoint {path} holds observations of width {widths[0]} and actions of width {widths[1]}, and "
                f"{name!r} has {spec.obs_dim} and {spec.action_dim}: the rest is taken for padding."
            )
    return tasks


def require_same_names(description: Any, tasks: TaskNames, path: str | Path) -> None:
    """Refuse other names than those that a file holds itself.

    Raises:
        LitPWMError: they differ.
    """
    model = description.get("world_model") if isinstance(description, Mapping) else None
    own = model.get("tasks") if isinstance(model, Mapping) else None
    if not isinstance(own, Mapping):
        return  # damaged: whoever reads the description says so
    if tuple(own) != names_in(tasks):
        raise LitPWMError(
            f"The checkpoint {str(path)!r} names its own tasks, {', '.join(map(str, own))}, and these are to be "
            f"{', '.join(names_in(tasks))}. Leave the names out."
        )
