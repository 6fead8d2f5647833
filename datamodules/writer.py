"""Writing an episode store: episodes are appended to shards, from which the final file is assembled."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import h5py
import numpy as np
from numpy.typing import ArrayLike

from datamodules.check import check
from datamodules.shards import Record, Rows, ShardFolder, read
from datamodules.store import EPISODE_COLUMNS, FORMAT, FORMAT_VERSION, ROW_COLUMNS
from lit_pwm.errors import LitPWMError, did_you_mean

_BLOCK_ROWS = 65_536
_PAGE = 4096
_LONGEST_SOURCE = 255


class EpisodeWriter:
    """Writes an episode store, to be used in a `with` statement.

    Each appended episode is safe from the process being killed as soon as `append` returns. Leaving the block without
    an exception assembles the final file, checks it, and gives it its name. After a kill or an exception there is no
    final file, and the episodes wait in the folder `PATH.shards`: a writer of the same path and tasks continues there,
    and `len(writer)` says how many episodes it found, so that the caller can go on with the next.

    Args:
        path: the final file.
        tasks: task name → (obs_dim, action_dim).
        action_repeat: control steps for each action.

    Raises:
        LitPWMError: the final file exists, another process is writing it, or its shards hold other tasks.
    """

    def __init__(
        self, path: str | os.PathLike[str], tasks: Mapping[str, tuple[int, int]], action_repeat: int = 2
    ) -> None:
        self.path, self.tasks = Path(path), checked_tasks(tasks)
        settings = store_settings(self.tasks, action_repeat)
        self._action_repeat, self._names = action_repeat, list(self.tasks)
        self._folder = ShardFolder(self.path, settings)
        found = self._folder.records()
        self._count = next(key for key in itertools.count() if key not in found)
        self._shard = self._folder.new_shard()

    def __len__(self) -> int:
        """Episodes written so far, those of an earlier, interrupted writer included."""
        return self._count

    def append(
        self,
        *,
        task: str,
        obs: ArrayLike,
        action: ArrayLike,
        reward: ArrayLike,
        terminated: bool = False,
        source: str = "unknown",
    ) -> None:
        """Add an episode of T actions.

        Args:
            task: one of the writer's tasks.
            obs: observations [T+1, O].
            action: actions [T, A]; action t was taken at observation t.
            reward: rewards [T]; reward t was earned by action t.
            terminated: whether it ended by termination rather than by its time limit.
            source: what acted.

        Raises:
            LitPWMError: the task is not known, shapes do not fit, or not all numbers are finite.
        """
        rows = checked_rows(self.tasks, task, obs, action, reward, terminated, source, f"episode {self._count}")
        self._shard.append(self._count, self._names.index(task), rows, bool(terminated), source)
        self._count += 1

    def close(self) -> None:
        """Assemble, check and publish the final file.

        Raises:
            LitPWMError: there is no episode, or a file of that name has appeared meanwhile.
        """
        self._shard.close()
        try:
            records = list(self._folder.records().values())
            if not records:
                raise LitPWMError(f"No episode was appended to {str(self.path)!r}; a store holds at least one.")
            finish(self._folder, self.tasks, self._action_repeat, records)
        finally:
            self._folder.close()

    def __enter__(self) -> EpisodeWriter:
        """The writer itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Publish the store, or after an exception leave the shards alone."""
        if kind is None:
            self.close()
            return
        self._shard.close()
        self._folder.close()


def store_settings(tasks: Mapping[str, tuple[int, int]], action_repeat: int) -> dict[str, Any]:
    """What the shards of a store must agree on."""
    return {"tasks": {name: list(dims) for name, dims in tasks.items()}, "action_repeat": action_repeat}


def checked_tasks(tasks: Mapping[str, tuple[int, int]]) -> dict[str, tuple[int, int]]:
    """Task names and widths, having made sure that they are such.

    Raises:
        LitPWMError: there is no task, or a width is no positive whole number.
    """
    checked = {}
    for name, dims in tasks.items():
        widths = tuple(dims)
        if not name or len(widths) != 2 or not all(isinstance(w, (int, np.integer)) and w > 0 for w in widths):
            raise LitPWMError(
                f"The tasks of a store are given as name: (obs_dim, action_dim) with positive widths; {name!r} has "
                f"{dims!r}."
            )
        checked[str(name)] = (int(widths[0]), int(widths[1]))
    if not checked:
        raise LitPWMError("A store needs at least one task, given as {name: (obs_dim, action_dim)}; there is none.")
    return checked


def checked_rows(
    tasks: Mapping[str, tuple[int, int]],
    task: str,
    obs: ArrayLike,
    action: ArrayLike,
    reward: ArrayLike,
    terminated: bool,
    source: str,
    where: str,
) -> Rows:
    """An episode's arrays in float32, having made sure that they are one episode of the task.

    Raises:
        LitPWMError: they are not.
    """
    if task not in tasks:
        raise LitPWMError(f"The task {task!r} of {where} is not among the store's. {did_you_mean(task, tasks)}")
    obs_dim, action_dim = tasks[task]
    arrays = {}
    for name, values in (("obs", obs), ("action", action), ("reward", reward)):
        try:
            # Numbers beyond float32's range become infinite, which is refused below.
            with np.errstate(over="ignore"):
                arrays[name] = np.asarray(values).astype(np.float32, casting="same_kind")
        except (TypeError, ValueError):
            try:
                arrays[name] = np.asarray(values, dtype=np.float32)
            except (TypeError, ValueError) as error:
                raise LitPWMError(f"The {name} of {where} ({task!r}) is no array of numbers: {error}.") from error
    length = len(arrays["reward"]) if arrays["reward"].ndim == 1 else 0
    expected = {"obs": (length + 1, obs_dim), "action": (length, action_dim), "reward": (length,)}
    found = {name: array.shape for name, array in arrays.items()}
    if length < 1 or found != expected:
        shapes = ", ".join(f"{name} {list(shape)}" for name, shape in found.items())
        raise LitPWMError(
            f"The arrays of {where} ({task!r}) have shapes {shapes}. An episode of T actions, at least one, has obs "
            f"[T+1, {obs_dim}], action [T, {action_dim}] and reward [T]."
        )
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            place = [int(i) for i in np.argwhere(~np.isfinite(array))[0]]
            raise LitPWMError(
                f"The {name} of {where} ({task!r}) holds {array[tuple(place)]} at {place}; all numbers must be finite "
                f"in float32. (TD-MPC2's files are one row off: NaN in each episode's first action and reward.)"
            )
    if terminated not in (0, 1):
        raise LitPWMError(f"terminated of {where} ({task!r}) is {terminated!r}; give True or False.")
    if not isinstance(source, str) or not 0 < len(source.encode()) <= _LONGEST_SOURCE or "\0" in source:
        raise LitPWMError(
            f"The source of {where} ({task!r}) is {source!r}; give a text of 1 to {_LONGEST_SOURCE} bytes."
        )
    return Rows(**arrays)


def finish(
    folder: ShardFolder, tasks: Mapping[str, tuple[int, int]], action_repeat: int, records: Sequence[Record]
) -> None:
    """Assemble a store from shards, check it, give it its final name, and remove the shards.

    Args:
        folder: where the shards lie.
        tasks: task name → (obs_dim, action_dim).
        action_repeat: control steps for each action.
        records: the episodes in the store's order.

    Raises:
        LitPWMError: a shard is damaged, or a file of that name has appeared meanwhile.
    """
    assembled = folder.path / "assembled.h5"
    assemble(assembled, tasks, action_repeat, records)
    faults = check(assembled)
    if faults:
        raise LitPWMError(f"The store assembled for {str(folder.final)!r} has faults: {'; '.join(faults)}.")
    with assembled.open("rb") as file:
        os.fsync(file.fileno())
    folder.publish(assembled)


def assemble(path: Path, tasks: Mapping[str, tuple[int, int]], action_repeat: int, records: Sequence[Record]) -> None:
    """Write a store file from records of shards, a block of rows at a time."""
    rows = np.array([record.length + 1 for record in records], np.int64)
    dims = np.array(list(tasks.values()), np.int64)
    # Page-aligned, so that mapped columns are aligned arrays.
    with h5py.File(path, "w", alignment_threshold=_PAGE, alignment_interval=_PAGE) as file:
        file.attrs["format"], file.attrs["format_version"] = FORMAT, FORMAT_VERSION
        file.attrs["task_names"] = np.array(list(tasks), dtype=h5py.string_dtype())
        file.attrs["obs_dims"], file.attrs["action_dims"] = dims[:, 0], dims[:, 1]
        file.attrs["action_repeat"] = action_repeat
        table = {"offset": np.cumsum(rows) - rows, "length": rows, "task": [record.task for record in records]}
        for name, dtype in EPISODE_COLUMNS.items():
            file.create_dataset(f"episode/{name}", data=np.asarray(table[name], dtype))
        sources = [record.source.encode() for record in records]
        text = h5py.string_dtype("utf-8", max(len(source) for source in sources))
        file.create_dataset("episode/source", data=np.array(sources, dtype=text))
        widths = {"obs": (int(dims[:, 0].max()),), "action": (int(dims[:, 1].max()),), "reward": (), "terminated": ()}
        columns = {
            name: file.create_dataset(name, (int(rows.sum()), *widths[name]), dtype)
            for name, dtype in ROW_COLUMNS.items()
        }
        start = 0
        for block in _blocks(records):
            arrays = _padded(block, widths)
            stop = start + len(arrays["reward"])
            for name, column in columns.items():
                column[start:stop] = arrays[name]
            start = stop


def _blocks(records: Sequence[Record]) -> Iterable[list[Record]]:
    block, rows = [], 0
    for record in records:
        block.append(record)
        rows += record.length + 1
        if rows >= _BLOCK_ROWS:
            yield block
            block, rows = [], 0
    if block:
        yield block


def _padded(block: Sequence[Record], widths: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """Rows of some episodes in the store's convention: padded with zeros, NaN where nothing followed."""
    total = sum(record.length + 1 for record in block)
    out = {name: np.zeros((total, *widths[name]), dtype) for name, dtype in ROW_COLUMNS.items()}
    start = 0
    for record in block:
        rows, last = read(record), start + record.length
        out["obs"][start : last + 1, : record.obs_dim] = rows.obs
        out["action"][start:last, : record.action_dim] = rows.action
        out["action"][last, : record.action_dim] = np.nan
        out["reward"][start:last], out["reward"][last] = rows.reward, np.nan
        out["terminated"][last] = record.terminated
        start = last + 1
    return out
