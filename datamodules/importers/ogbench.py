"""OGBench's `.npz` files, in each of the three layouts that its loader makes, once they have rewards.

As distributed, the last row of each piece (`terminals`) holds its last observation and no transition. Saved as a
compact data set, `valids` is 0 in that row. Saved as a regular one, there are `next_observations`, and every row is a
transition.
(`ogbench.utils.load_dataset` and `ogbench.relabel_utils`, seohongpark/ogbench.)
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from datamodules.importers.flat_columns import Shapes, flags, named_task, require_columns, require_files
from datamodules.importers.importer import ImportOption, Plan
from datamodules.importers.npz_files import NpzFile, npz_members
from datamodules.importers.row_files import Pieces, ReadRows, RowFile, marked, row_plan
from datamodules.importers.shared_options import ACTION_BOUNDS, TASK
from lit_pwm.errors import LitPWMError

MASKS = ImportOption(
    "--masks",
    "what a mask of 0 means: `terminated` cuts the piece there; without the option masks are not looked at",
    "terminated",
    choices=("terminated",),
)


class OGBench:
    """Reads OGBench's files; see the module."""

    name = "ogbench"
    title = "OGBench's .npz with rewards"
    options = (TASK, ACTION_BOUNDS, MASKS)

    def recognises(self, path: Path) -> bool:
        """Whether it is a file of numpy arrays with OGBench's names."""
        return {"observations", "actions", "terminals"} <= set(npz_members(path))

    def plan(self, sources: Sequence[Path], options: Mapping[str, Any]) -> Plan:
        """What the files hold."""
        paths = require_files(sources, self.title)
        found = [(path, *_read(path, options[MASKS.key] is not None)) for path in paths]
        tasks = named_task(options, "OGBench's file", [(path, shapes) for path, shapes, _ in found])
        files = [
            RowFile(
                path, pieces, lambda path=path: _opened(path), next_obs=_NEXT if _NEXT in shapes else None
            )
            for path, shapes, pieces in found
        ]  # fmt: skip
        return row_plan(files, tasks, self.name)


_NEXT = "next_observations"


@contextlib.contextmanager
def _opened(path: Path) -> Generator[ReadRows]:
    with NpzFile(path) as file:
        yield file.rows


def _read(path: Path, cut: bool) -> tuple[Shapes, Pieces]:
    """The columns of a file, and its pieces.

    Raises:
        LitPWMError: it has no rewards, or its parts do not fit each other.
    """
    with NpzFile(path) as file:
        shapes = file.shapes
        if "rewards" not in shapes:
            raise LitPWMError(
                f"{str(path)!r} has no rewards, as OGBench distributes its files: they are for goals. "
                f"Make the data of a single task (`ogbench.make_env_and_datasets('…-singletask-…')`), which relabels "
                f"it, and save what it returns with numpy.savez."
            )
        wanted = ["observations", "actions", "rewards", "terminals"]
        wanted += [name for name in (_NEXT, "valids") if name in shapes] + ["masks"] * cut
        rows = require_columns(path, "OGBench", shapes, wanted)
        ends = flags(path, "terminals", file.rows("terminals", 0, rows))
        if "valids" in shapes:
            ends = ~flags(path, "valids", file.rows("valids", 0, rows))
        goes_on = flags(path, "masks", file.rows("masks", 0, rows)) if cut else np.ones(rows, bool)
    last_is_transition = _NEXT in shapes and "valids" not in shapes
    return shapes, _pieces(ends, ~goes_on, last_is_transition)


def _pieces(ends: np.ndarray, terminal: np.ndarray, last_is_transition: bool) -> Pieces:
    """Pieces of a file's rows.

    Args:
        ends: whether a row is its piece's last, bool [N].
        terminal: whether a transition from that row terminates, bool [N].
        last_is_transition: whether a piece's last row holds one.
    """
    first, rows = marked(ends)
    length = rows if last_is_transition else rows - 1
    where = np.flatnonzero(terminal)
    # The first terminal row that is not before each piece, or one beyond all.
    earliest = np.append(where, len(ends))[np.searchsorted(where, first)]
    terminated = earliest < first + length
    length = np.where(terminated, earliest + 1 - first, length)
    return Pieces(first, length, terminated, np.ones(len(first), bool)).with_something_left()
