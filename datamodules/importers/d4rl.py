"""D4RL's `.hdf5` files: rows of transitions one after another (`OfflineEnv.get_dataset`, Farama-Foundation/D4RL)."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from datamodules.importers.flat_columns import Shapes, flags, named_task, require_columns, require_files
from datamodules.importers.hdf5_files import open_hdf5, own_array, own_names
from datamodules.importers.importer import ImportOption, Plan
from datamodules.importers.row_files import Pieces, ReadRows, RowFile, marked, row_plan, without_next
from datamodules.importers.shared_options import ACTION_BOUNDS, TASK
from lit_pwm.errors import LitPWMError
from lit_pwm.options import Count, argument

EPISODE_LENGTH = ImportOption(
    "--episode-length", "rows after which an episode ends, where a file has no `timeouts`", "N", argument(Count)
)
_COLUMNS = ("observations", "actions", "rewards", "terminals")
_OPTIONAL = ("timeouts", "next_observations")


class D4RL:
    """Reads D4RL's files; see the module."""

    name = "d4rl"
    title = "D4RL's .hdf5"
    options = (TASK, ACTION_BOUNDS, EPISODE_LENGTH)

    def recognises(self, path: Path) -> bool:
        """Whether it is an HDF5 file with D4RL's names."""
        return {"observations", "actions", "rewards"} <= set(own_names(path))

    def plan(self, sources: Sequence[Path], options: Mapping[str, Any]) -> Plan:
        """What the files hold."""
        paths = require_files(sources, self.title)
        found = [(path, *_read(path, options[EPISODE_LENGTH.key])) for path in paths]
        tasks = named_task(options, "D4RL's file", [(path, shapes) for path, shapes, _ in found])
        files = [
            RowFile(
                path,
                pieces,
                lambda path=path: _opened(path),
                next_obs="next_observations" if "next_observations" in shapes else None,
            )
            for path, shapes, pieces in found
        ]
        return row_plan(files, tasks, self.name)


@contextlib.contextmanager
def _opened(path: Path) -> Generator[ReadRows]:
    with open_hdf5(path) as file:
        arrays = {name: own_array(path, file, name) for name in _there(file)}
        yield lambda name, start, stop: arrays[name].rows(start, stop)


def _there(file: h5py.File) -> list[str]:
    names = set(file)  # `in` would follow links to other files
    return [*_COLUMNS, *(name for name in _OPTIONAL if name in names)]


def _read(path: Path, episode_length: int | None) -> tuple[Shapes, Pieces]:
    """The columns of a file, and its episodes.

    Raises:
        LitPWMError: it does not say where episodes end, or its parts do not fit each other.
    """
    with open_hdf5(path) as file:
        names = _there(file)
        arrays = {name: own_array(path, file, name) for name in names}
        shapes = {name: (array.shape, array.dtype) for name, array in arrays.items()}
        rows = require_columns(path, "D4RL", shapes, names)
        terminal = flags(path, "terminals", arrays["terminals"].rows(0, rows))
        if "timeouts" in arrays:
            if episode_length is not None:
                raise LitPWMError(
                    f"{str(path)!r} has `timeouts`, which say where its episodes end; --episode-length is for files "
                    f"without them. Leave the option out."
                )
            ends = terminal | flags(path, "timeouts", arrays["timeouts"].rows(0, rows))
        elif episode_length is None:
            raise LitPWMError(
                f"{str(path)!r} has no `timeouts`, so that it does not say where episodes end that did not terminate. "
                f"Give the environment's time limit: --episode-length N."
            )
        else:
            ends = _cut(terminal, episode_length)
    first, count = marked(ends)
    return shapes, without_next(first, count, terminal[first + count - 1], "next_observations" in shapes)


def _cut(terminal: np.ndarray, most: int) -> np.ndarray:
    """Whether a row is its episode's last: it terminates, or is the `most`-th after the episode's start; bool [N]."""
    ends = terminal.copy()
    for first, rows in zip(*marked(terminal), strict=True):
        ends[first + most - 1 : first + rows : most] = True
    return ends
