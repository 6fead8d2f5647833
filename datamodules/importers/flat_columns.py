"""What D4RL's and OGBench's files share: columns of one length that are told by name, and a task to be named."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from datamodules.importers.importer import ImportedTask
from datamodules.importers.shared_options import ACTION_BOUNDS, TASK, bounds_of
from lit_pwm.errors import LitPWMError

Shapes = Mapping[str, tuple[tuple[int, ...], np.dtype]]
"""Shape and type of each column, by name."""


def require_columns(path: Path, title: str, shapes: Shapes, wanted: Sequence[str]) -> int:
    """Make sure that columns are there, that those of rows fit each other, and hold numbers of the right dimensions.

    Args:
        path: the file.
        title: of its format.
        shapes: of the columns that it has.
        wanted: those that must be there; `observations`, `actions` and `next_observations` have rows of numbers, the
            others one number a row.

    Returns:
        The number of rows.

    Raises:
        LitPWMError: they are not such.
    """
    for name in wanted:
        if name not in shapes:
            raise LitPWMError(
                f"{str(path)!r} has no {name!r} as {title} has it; it holds {', '.join(sorted(shapes)) or 'nothing'}. "
                f"Without it the file cannot be imported."
            )
    rows = shapes["observations"][0][0] if shapes["observations"][0] else 0
    for name in wanted:
        shape, dtype = shapes[name]
        if dtype.kind not in "fiub":
            raise LitPWMError(f"{name!r} of {str(path)!r} holds {dtype}, where numbers are expected.")
        if name in _WIDE and len(shape) != 2:
            raise LitPWMError(
                f"{name!r} of {str(path)!r} has shape {list(shape)}, and rows of numbers [N, width] are imported. "
                + ("Pixels are not." if len(shape) > 2 else "Discrete actions and single numbers are not.")
            )
        if (name not in _WIDE and shape not in ((rows,), (rows, 1))) or shape[0] != rows:
            raise LitPWMError(
                f"{name!r} of {str(path)!r} has shape {list(shape)}, and there are {rows:,} observations: a file has "
                f"as many rows of each. It is damaged, or of another format."
            )
    if shapes.get("next_observations", shapes["observations"])[0] != shapes["observations"][0]:
        raise LitPWMError(
            f"'next_observations' of {str(path)!r} have shape {list(shapes['next_observations'][0])}, and "
            f"'observations' {list(shapes['observations'][0])}. They should be alike."
        )
    if not rows:
        raise LitPWMError(f"{str(path)!r} holds no rows.")
    return rows


_WIDE = ("observations", "next_observations", "actions")


def flags(path: Path, name: str, values: np.ndarray) -> np.ndarray:
    """A column of zeros and ones as truth values, bool [N].

    Raises:
        LitPWMError: there is something else in it.
    """
    values = values.reshape(len(values))
    wrong = ~((values == 0) | (values == 1))
    if wrong.any():
        row = int(np.argmax(wrong))
        raise LitPWMError(
            f"{name!r} of {str(path)!r} is {values[row]} in row {row:,}; only 0 and 1 say what they mean."
        )
    return values.astype(bool)


def named_task(options: Mapping[str, Any], title: str, files: Sequence[tuple[Path, Shapes]]) -> dict[str, ImportedTask]:
    """The one task of files that name none and have no bounds, from `--task` and `--action-bounds`.

    Raises:
        LitPWMError: an option is missing, or the files differ in widths.
    """
    name = task_name(options, f"{title} {str(files[0][0])!r}")
    dims = {path: tuple(shapes[column][0][1] for column in ("observations", "actions")) for path, shapes in files}
    if len(set(dims.values())) > 1:
        listed = "; ".join(f"{str(path)!r} {widths}" for path, widths in dims.items())
        raise LitPWMError(
            f"The files differ in the widths of observations and actions: {listed}. A task has one of each; import "
            f"other tasks into stores of their own."
        )
    obs_dim, action_dim = next(iter(dims.values()))
    low, high = bounds_of(options[ACTION_BOUNDS.key], action_dim, f"{title} {str(files[0][0])!r}")
    return {name: ImportedTask(obs_dim, action_dim, low, high)}


def task_name(options: Mapping[str, Any], what: str) -> str:
    """The task's name, from `--task`.

    Raises:
        LitPWMError: it is not given.
    """
    name = options[TASK.key]
    if not name:
        raise LitPWMError(
            f"{what} names no environment. Give its task a name: --task NAME (--task gym:ID where it is an environment "
            f"of gymnasium's)."
        )
    return name


def require_files(sources: Sequence[Path], title: str) -> list[Path]:
    """The sources, all of which are files.

    Raises:
        LitPWMError: one is a folder.
    """
    for path in sources:
        if path.is_dir():
            raise LitPWMError(f"{str(path)!r} is a folder, and {title} is one file. Name the file itself.")
    return list(sources)
