"""The episode store: one HDF5 file of episodes of any tasks and lengths, and its reader.

Layout, format version 1. Rows of all episodes one after another: `obs [N, O] f4`, `action [N, A] f4`, `reward [N] f4`,
`terminated [N] u1`. An episode of T actions has T + 1 rows: row t holds the observation o_t, the action a_t taken there
and the reward r_t that it earned; the last row's action and reward are NaN, and `terminated` may be set on it alone.
For each of E episodes: `episode/offset` (first row), `episode/length` (rows, T + 1), `episode/task` (index into the
task names), `episode/source` (text: what acted). Attributes: `format`, `format_version`, `task_names`, `obs_dims` and
`action_dims` (true widths of each task; narrower rows are padded with zeros), `action_repeat`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from datamodules.columns import ArrayColumn, ChunkedColumn, Column, LargeMappedColumn, mapped
from lit_pwm.errors import LitPWMError

FORMAT = "lit_pwm episode store"
FORMAT_VERSION = 1
ROW_COLUMNS = {"obs": np.float32, "action": np.float32, "reward": np.float32, "terminated": np.uint8}
EPISODE_COLUMNS = {"offset": np.int64, "length": np.int64, "task": np.int32}


@dataclass(frozen=True, eq=False)
class Episode:
    """One episode of T actions, in the true widths of its task.

    Attributes:
        task: the task's name.
        obs: observations, float32 [T+1, O].
        action: actions, float32 [T, A].
        reward: rewards, float32 [T].
        terminated: whether it ended by termination rather than by its time limit.
        source: what acted.
    """

    task: str
    obs: np.ndarray
    action: np.ndarray
    reward: np.ndarray
    terminated: bool
    source: str

    def __len__(self) -> int:
        """The number of actions T."""
        return len(self.reward)


def open_store(path: str | os.PathLike[str]) -> h5py.File:
    """The HDF5 file of a store, open for reading, whose format and version have been checked.

    Raises:
        LitPWMError: there is no such file, or it is no episode store of this version.
    """
    path = Path(path)
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise LitPWMError(
            f"The episode store {str(path)!r} {what}. Name an HDF5 file written by `lit-pwm collect` or by "
            f"datamodules.EpisodeWriter."
        )
    try:
        file = h5py.File(path, "r", locking=False)
    except OSError as error:
        raise LitPWMError(
            f"The file {str(path)!r} could not be read as HDF5 ({error}). An episode store is an HDF5 file written by "
            f"`lit-pwm collect` or by datamodules.EpisodeWriter."
        ) from error
    found, version = file.attrs.get("format"), file.attrs.get("format_version")
    if found == FORMAT and version == FORMAT_VERSION:
        return file
    file.close()
    if found != FORMAT:
        raise LitPWMError(
            f"The file {str(path)!r} is HDF5, but no episode store: its attribute 'format' is {_plain(found)!r} and "
            f"should be {FORMAT!r}. Write stores with `lit-pwm collect` or datamodules.EpisodeWriter."
        )
    raise LitPWMError(
        f"The episode store {str(path)!r} has format_version {_plain(version)!r}; this version of lit_pwm reads "
        f"{FORMAT_VERSION}. Read it with the version of lit_pwm that wrote it, or write it anew."
    )


def _physical_memory() -> int:
    """Bytes of memory of this machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


class EpisodeStore:
    """Reads an episode store.

    `len(store)` is the number of episodes and `store[i]` an `Episode`. Only the table of episodes is read on opening.
    Rows are mapped from the file when they are first asked for, in each process by itself, so that a store can be
    pickled, be larger than memory, and be shared by processes that read it.

    Args:
        path: the file.

    Attributes:
        path: the file.
        tasks: task name → (obs_dim, action_dim), unpadded, in index order.
        action_repeat: control steps for each action, over which a reward sums.
        offset: first row of each episode, int64 [E].
        length: actions T of each episode, one less than its rows, int64 [E].
        task: index of each episode's task, int64 [E].
        obs_dim: padded width of observations.
        action_dim: padded width of actions.

    Raises:
        LitPWMError: there is no such file, it is no episode store of this version, or its parts do not fit together.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        with open_store(path) as file:
            try:
                self._read_table(file)
            except (KeyError, ValueError, TypeError) as error:
                raise self._damaged(str(error)) from error
        self._columns: dict[str, Column] = {}

    def _read_table(self, file: h5py.File) -> None:
        names = [str(name) for name in file.attrs["task_names"]]
        dims = zip(file.attrs["obs_dims"].tolist(), file.attrs["action_dims"].tolist(), strict=True)
        self.tasks: dict[str, tuple[int, int]] = dict(zip(names, dims, strict=True))
        self.action_repeat = int(file.attrs["action_repeat"])
        self.offset: np.ndarray = file["episode/offset"][:].astype(np.int64)
        rows: np.ndarray = file["episode/length"][:].astype(np.int64)
        self.task: np.ndarray = file["episode/task"][:].astype(np.int64)
        self.length = rows - 1
        self.obs_dim, self.action_dim = int(file["obs"].shape[1]), int(file["action"].shape[1])
        self._shapes = {name: file[name].shape for name in ROW_COLUMNS}
        total = int(rows.sum())
        for name, dtype in ROW_COLUMNS.items():
            if file[name].dtype != dtype or len(file[name]) != total:
                raise ValueError(
                    f"{name} has {len(file[name])} rows of {file[name].dtype}, and {total} of {np.dtype(dtype)} fit"
                )
        if not (len(rows) == len(self.offset) == len(self.task) == len(file["episode/source"])):
            raise ValueError("the columns of episode/ differ in length")
        if (rows < 2).any() or not np.array_equal(self.offset, np.cumsum(rows) - rows):
            raise ValueError("episodes do not lie one after another")
        if len(self.task) and not (self.task.min() >= 0 and self.task.max() < len(names)):
            raise ValueError("episode/task points beyond the task names")
        widths = np.array(list(self.tasks.values())).reshape(-1, 2)
        if (widths > (self.obs_dim, self.action_dim)).any():
            raise ValueError("a task is wider than the rows")

    def _damaged(self, what: str) -> LitPWMError:
        return LitPWMError(
            f"The episode store {str(self.path)!r} is damaged: {what}. `lit-pwm data check {self.path}` lists all "
            f"faults; write the store anew."
        )

    def __len__(self) -> int:
        """The number of episodes."""
        return len(self.offset)

    @property
    def num_rows(self) -> int:
        """Rows of all episodes, one more for each than it has actions."""
        return self._shapes["obs"][0]

    @property
    def num_transitions(self) -> int:
        """Actions of all episodes."""
        return self.num_rows - len(self)

    @property
    def task_names(self) -> tuple[str, ...]:
        """Names of the tasks in index order."""
        return tuple(self.tasks)

    def column(self, name: str) -> Column:
        """One of `obs`, `action`, `reward`, `terminated`, opened in this process when first asked for."""
        if name not in self._columns:
            self._columns[name] = self._open_column(name)
        return self._columns[name]

    def _open_column(self, name: str) -> Column:
        with h5py.File(self.path, "r", locking=False) as file:
            dataset = file[name]
            if dataset.shape != self._shapes[name]:
                raise self._damaged(
                    f"{name} has shape {dataset.shape}, and had {self._shapes[name]} when it was opened"
                )
            offset = dataset.id.get_offset()
            if offset is not None and file.userblock_size == 0:
                place = (self.path, offset, dataset.shape, dataset.dtype)
                fits = self.path.stat().st_size < _physical_memory() / 2
                return ArrayColumn(mapped(*place)) if fits else LargeMappedColumn(*place)
        return ChunkedColumn(self.path, name)

    @property
    def sources(self) -> list[str]:
        """What acted in each episode, [E]; read from the file at each call."""
        with h5py.File(self.path, "r", locking=False) as file:
            return [source.decode() for source in file["episode/source"][:]]

    def terminated(self) -> np.ndarray:
        """Whether each episode ended by termination, bool [E]."""
        last = self.offset + self.length
        return self.column("terminated").windows(last, 1)[0].astype(bool)

    def __getitem__(self, index: int) -> Episode:
        """Episode `index`, copied from the file.

        Raises:
            IndexError: there is no such episode.
        """
        count = len(self)
        if not -count <= index < count:
            raise IndexError(f"episode {index} of a store of {count} episodes")
        index %= count
        task = self.task_names[self.task[index]]
        obs_dim, action_dim = self.tasks[task]
        start, stop = int(self.offset[index]), int(self.offset[index] + self.length[index])
        with h5py.File(self.path, "r", locking=False) as file:
            source = file["episode/source"][index].decode()
        return Episode(
            task=task,
            obs=self.column("obs").read(start, stop + 1)[:, :obs_dim].copy(),
            action=self.column("action").read(start, stop)[:, :action_dim].copy(),
            reward=self.column("reward").read(start, stop).copy(),
            terminated=bool(self.column("terminated").read(stop, stop + 1)[0]),
            source=source,
        )

    def __iter__(self) -> Iterator[Episode]:
        """All episodes in order."""
        return (self[index] for index in range(len(self)))

    def __getstate__(self) -> dict[str, Any]:
        # Mapped files and HDF5 handles belong to the process that opened them.
        return {**self.__dict__, "_columns": {}}
