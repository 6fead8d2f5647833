"""Whether a store is sound: its structure, which every reader looks at, and all of its values and checksums."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping

import h5py
import numpy as np

from datamodules.info import StoreInfo, TaskInfo, info
from datamodules.layout import (
    EPISODE_COLUMNS,
    MOMENTS,
    ROW_COLUMNS,
    block_rows,
    column_checksum,
    observation_moments,
    rows_checksum,
    runs,
)
from datamodules.opening import Identity, open_store, require_unchanged
from datamodules.store_statistics import moment_blocks, statistics_of
from datamodules.structure import Structure, attempt, checksum_fault, read_structure
from datamodules.values import Block, Tally, tally_rows
from lit_pwm.errors import LitPWMError
from lit_pwm.paths import absolute

__all__ = ["StoreInfo", "TaskInfo", "check", "info"]

_BLOCK_ROWS = 65_536
_CHANGED = "rows have possible values, but not the checksum of what was written"
_OTHER_STATISTICS = "episode/obs_count, obs_sum and obs_m2 are not those of the rows"
_OTHER_OF_TASKS = "the counts, returns and scales of observations that the store keeps are not those of the rows"
_NOT_REPEATED = "obs of an episode whose last_obs_known is 0 is not the row before it repeated"
_NOT_ENDED = "last_obs_known is 0 in an episode that did not terminate"


def check(path: str | os.PathLike[str], advance: Callable[[int], None] = lambda rows: None) -> list[str]:
    """All faults of a store, those of one kind grouped into one sentence; none means that it is sound.

    Reads everything once, a block at a time.

    Args:
        path: the store's file.
        advance: takes the number of rows of each block that has been looked at.

    Raises:
        LitPWMError: there is no such file, or it is no episode store of a version that is read.
    """
    path = absolute(path)
    with open_store(path) as (file, version):
        identity = Identity.of(path)
        found = read_structure(file, version)
        faults = found.faults
        if not found.rows_readable:
            return faults
        # A task index that points nowhere has been reported; clipping it lets the rest be looked at.
        found.table["task"] = np.clip(found.table["task"], 0, len(found.tasks) - 1)
        attempt(faults, "the rows", lambda: faults.extend(_rows(file, found, advance)))
    try:
        require_unchanged(path, identity)
    except LitPWMError as changed:
        faults.append(f"the file did not stay as it was while it was read: {changed}")
    return faults


def _rows(file: h5py.File, found: Structure, advance: Callable[[int], None]) -> list[str]:
    """Faults of all rows, and of what version 2 says of them beside."""
    offset, length = found.table["offset"], found.table["length"]
    tallies: dict[str, Tally] = {}
    kept = _Kept(file, found)
    for first, last in runs(length, block_rows(found.shapes["obs"][1], _BLOCK_ROWS)):
        start, stop = int(offset[first]), int(offset[last - 1] + length[last - 1])
        rows = {name: file[name][start:stop] for name in ROW_COLUMNS}
        block = Block.of(rows, start, offset, length - 1, found.table["task"], found.tasks)
        faulty = tally_rows(tallies, block)
        for kind, wrong in _repeated(block, found):
            if wrong.any():
                tallies.setdefault(kind, Tally()).add(block, wrong, None)
        if found.version > 1:
            kept.compare(tallies, block, faulty, first, last)
        advance(stop - start)
    return [tally.describe(kind) for kind, tally in tallies.items()] + kept.faults(tallies)


def _repeated(block: Block, found: Structure) -> Iterator[tuple[str, np.ndarray]]:
    """Faults of last observations that were not recorded: the kind, and which rows have it, bool [R]."""
    if "last_obs_known" not in found.table:
        return
    flagged = block.is_last & (found.table["last_obs_known"][block.episode] == 0)
    obs, before = block.rows["obs"], np.roll(block.rows["obs"], 1, axis=0)  # blocks begin with whole episodes
    yield _NOT_REPEATED, flagged & ((obs != before) & np.isfinite(obs)).any(axis=1)
    yield _NOT_ENDED, flagged & (block.rows["terminated"] == 0)


class _Kept:
    """What a store of version 2 keeps of its rows: their checksums and statistics."""

    def __init__(self, file: h5py.File, found: Structure) -> None:
        self._file, self._found = file, found
        self._dims = np.array(found.attributes["obs_dims"])[found.table["task"]]
        self._known = found.table.get("last_obs_known", np.ones(len(found.table["task"])))
        self._checksums = dict.fromkeys(MOMENTS if found.version > 1 else (), 0)

    def compare(self, tallies: dict[str, Tally], block: Block, faulty: np.ndarray, first: int, last: int) -> None:
        """Compare the rows of episodes first to last - 1, and count differences that no other fault explains."""
        kept = {name: self._file[f"episode/{name}"][first:last] for name in MOMENTS}
        for name, values in kept.items():
            self._checksums[name] = column_checksum(values, self._checksums[name])
        begins = self._found.table["offset"][first:last] - self._found.table["offset"][first]
        for number, begin in enumerate(begins.tolist()):
            episode = slice(begin, begin + int(self._found.table["length"][first + number]))
            if faulty[episode].any():
                continue
            kind = None
            if (
                rows_checksum({n: v[episode] for n, v in block.rows.items()})
                != self._found.table["checksum"][first + number]
            ):
                kind = _CHANGED
            elif not self._agree(block.rows["obs"][episode], first + number, {n: v[number] for n, v in kept.items()}):
                kind = _OTHER_STATISTICS
            if kind:
                wrong = np.zeros(len(faulty), bool)
                wrong[episode] = True
                tallies.setdefault(kind, Tally()).add(block, wrong, None)

    def _agree(self, obs: np.ndarray, episode: int, kept: dict[str, np.ndarray]) -> bool:
        """Whether statistics are those of the rows, to the rounding of another order of summing."""
        width, rows = self._dims[episode], len(obs)
        if not self._known[episode] and kept["obs_count"] == rows - 1:  # stores of long ago counted the repeated row
            rows -= 1
        own = obs[:rows, :width]
        largest = float(np.abs(own).max(initial=0))
        scales = {"obs_sum": rows * largest, "obs_m2": rows * largest**2}
        return kept["obs_count"] == rows and all(
            np.allclose(kept[name][:width], true, rtol=1e-6, atol=1e-9 * scales[name]) and not kept[name][width:].any()
            for name, true in zip(scales, observation_moments(own), strict=True)
        )

    def faults(self, tallies: Mapping[str, Tally]) -> list[str]:
        """Columns of statistics that are not what was written, and tasks whose statistics are not those of the rows."""
        written = dict(
            zip(EPISODE_COLUMNS[self._found.version], self._found.attributes.get("column_checksums", ()), strict=False)
        )
        changed = [name for name, value in self._checksums.items() if value != written[name]]
        return [checksum_fault(f"episode/{name}") for name in changed] + ([] if changed else self._of_tasks(tallies))

    def _of_tasks(self, tallies: Mapping[str, Tally]) -> list[str]:
        """The tasks whose statistics are others than their rows', where no fault of a row explains it."""
        table, kept = self._found.table, self._found.statistics
        if kept is None:
            return []
        obs_dim, tasks = self._found.shapes["obs"][1], list(self._found.tasks)

        def read(name: str, start: int, stop: int) -> np.ndarray:
            return self._file[name][start:stop]

        length, task = table["length"].astype(np.int64), table["task"].astype(np.int64)
        true = statistics_of(read, moment_blocks(read, len(task), obs_dim), length, task, len(tasks), obs_dim)
        differs = true.differing(kept)
        differs[task[sorted(set().union(*(tally.episodes for tally in tallies.values())))]] = False
        names = [name for name, other in zip(tasks, differs, strict=True) if other]
        return [f"{_OTHER_OF_TASKS}: {', '.join(map(repr, names))}"] if names else []
