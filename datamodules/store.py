"""Reading an episode store, whose layout `datamodules.layout` describes."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any

import h5py
import numpy as np

from datamodules.columns import ArrayColumn, ChunkedColumn, Column, LargeMappedColumn, is_cached, mapped
from datamodules.episode import Episode
from datamodules.layout import EPISODE_COLUMNS, MOMENTS, block_rows, column_checksum, content_hash
from datamodules.opening import Identity, open_store, require_unchanged
from datamodules.probing import Fault
from datamodules.structure import Structure, checksum_fault, one_line, read_column, read_structure
from lit_pwm.errors import LitPWMError
from lit_pwm.paths import absolute

_SHOWN_FAULTS = 3
_BLOCK_EPISODES = 65_536
_BLOCK_TERMINATED = 2**24
__all__ = ["Episode", "EpisodeStore"]


class EpisodeStore:
    """Reads an episode store.

    `len(store)` is the number of episodes and `store[i]` an `Episode`. On opening, the structure is looked at and the
    table of episodes is read; the checksums of rows are left to `lit-pwm data check`, which reads everything. Rows are
    mapped from the file when they are first asked for, in each process by itself, so that a store can be pickled, be
    larger than memory, and be shared by processes that read it. The file must stay as it is meanwhile.

    Args:
        path: the file.

    Attributes:
        path: the file, absolute.
        identity: the file's device, number, size and time of change when it was opened.
        version: of the file's format.
        content: what tells the store from others, the same for all copies; None for version 1.
        hash: SHA-256 over the checksums of all columns and attributes, 64 hexadecimal digits; None for version 1.
        statistics: what is kept of each task; None in older stores, of which `datamodules.info.statistics` computes it.
        tasks: task name → (obs_dim, action_dim), unpadded, in index order.
        action_repeat: control steps for each action, over which a reward sums.
        clipped_actions: actions that were beyond ±1 by rounding and that the writer clipped.
        clamped_rewards: rewards that were beyond the range of a model's bins and that the writer was told to clamp.
        task_specs: task name → what the store says of its environment, as read from JSON; empty before version 3.
        whole_episodes: whether the episodes of each task are whole, bool [number of tasks]; sums of rewards of pieces
            are no returns.
        last_obs_known: whether each episode's last observation was recorded, bool [E].
        offset: first row of each episode, int64 [E].
        length: actions T of each episode, one less than its rows, int64 [E].
        task: index of each episode's task, int64 [E].
        obs_dim: padded width of observations.
        action_dim: padded width of actions.
        is_chunked: whether rows lie in chunks, perhaps compressed, which cannot be mapped.

    Raises:
        LitPWMError: there is no such file, it is no episode store of a version that is read, or its structure has
            faults.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = absolute(path)
        with open_store(self.path) as (file, self.version):
            self.identity = Identity.of(self.path)
            found = read_structure(file, self.version)
            self.is_chunked = not found.faults and any(file[name].chunks for name in ("obs", "action", "reward"))
        if found.faults:
            raise self._damaged("; ".join(found.faults[:_SHOWN_FAULTS]))
        self._take(found)
        self._columns: dict[str, Column] = {}
        self._process = os.getpid()
        self._terminated: np.ndarray | None = None

    def _take(self, found: Structure) -> None:
        self.tasks, attributes = found.tasks, found.attributes
        self.action_repeat = attributes["action_repeat"]
        self.clipped_actions = attributes.get("clipped_actions", 0)
        self.clamped_rewards = attributes.get("clamped_rewards", 0)
        self.content: tuple[int, ...] | None = None
        self.hash: str | None = None
        self.statistics = found.statistics
        if self.version > 1:
            self.hash = content_hash(attributes)
            self.content = (attributes["attribute_checksum"], *attributes["column_checksums"])
        self.offset: np.ndarray = found.table["offset"].astype(np.int64)
        self.length: np.ndarray = found.table["length"].astype(np.int64) - 1
        self.task: np.ndarray = found.table["task"].astype(np.int64)
        specs = attributes.get("task_specs", ["{}"] * len(self.tasks))
        self.task_specs: dict[str, dict[str, Any]] = dict(zip(self.tasks, map(json.loads, specs), strict=True))
        self.whole_episodes = np.array(attributes.get("whole_episodes", [1] * len(self.tasks)), bool)
        self.last_obs_known = np.asarray(found.table.get("last_obs_known", np.ones(len(self.offset)))).astype(bool)
        self.obs_dim, self.action_dim = found.shapes["obs"][1], found.shapes["action"][1]
        self._shapes = found.shapes

    def action_repeat_of(self, task: str) -> int:
        """Steps of the environment for each action of a task's episodes: as its spec says, else as the store does."""
        own = self.task_specs[task].get("action_repeat", self.action_repeat)
        return own if isinstance(own, int) else self.action_repeat

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

    def require_unchanged(self) -> None:
        """Make sure that the file is as it was when it was opened.

        Raises:
            LitPWMError: it is gone, replaced, longer, shorter, or was written to.
        """
        require_unchanged(self.path, self.identity)

    def column(self, name: str) -> Column:
        """One of `obs`, `action`, `reward`, `terminated`, opened in this process when first asked for.

        Raises:
            LitPWMError: the file has changed since the store was opened.
        """
        if self._process != os.getpid():  # forked, and open HDF5 files are not to be shared
            self._columns, self._process = {}, os.getpid()
        if name not in self._columns:
            self.require_unchanged()
            self._columns[name] = self._open_column(name)
        return self._columns[name]

    def _open_column(self, name: str) -> Column:
        with h5py.File(self.path, "r", locking=False) as file:
            dataset = file[name]
            offset = dataset.id.get_offset()
            if offset is not None and file.userblock_size == 0:
                place = (self.path, offset, dataset.shape, dataset.dtype)
                return ArrayColumn(mapped(*place)) if is_cached(self.identity.size) else LargeMappedColumn(*place)
        return ChunkedColumn(self.path, name)

    def _episode_column(self, name: str, rows: slice = slice(None)) -> Any:
        """A per-episode column or some of it, read from the file at each call."""
        self.require_unchanged()
        try:
            with h5py.File(self.path, "r", locking=False) as file:
                return read_column(file, name, rows)
        except Fault as fault:
            raise self._damaged(f"episode/{name} {fault}") from fault
        except Exception as error:  # of h5py, which meets damage with exceptions of any class
            raise self._damaged(f"episode/{name} cannot be read ({one_line(error)})") from error

    @property
    def sources(self) -> list[str]:
        """What acted in each episode, [E]; read from the file at each call."""
        return self._episode_column("source")

    def observation_moments(self) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
        """Of each episode's observations the number of rows [E], and of each entry the sum and M2, float64 [E, O].

        M2 is the sum of squared deviations from the episode's mean; entries of padding are 0. None in version 1, which
        does not have them. Read from the file, and verified, at each call.

        Raises:
            LitPWMError: they are not what was written.
        """
        if self.version == 1:
            return None
        count, total, squares = zip(*(block[1:] for block in self.moment_blocks()), strict=True)
        return np.concatenate(count), np.concatenate(total), np.concatenate(squares)

    def moment_blocks(self) -> Iterator[tuple[int, np.ndarray, np.ndarray, np.ndarray]]:
        """`observation_moments` of a store of version 2 in blocks of about 100 MB, each after its first episode.

        The checksums are those of whole columns, so that they are compared when all blocks have been taken.

        Raises:
            LitPWMError: they are not what was written.
        """
        checksums = dict.fromkeys(MOMENTS, 0)
        step = block_rows(self.obs_dim, _BLOCK_EPISODES)
        for first in range(0, len(self), step):
            block = [self._episode_column(name, slice(first, first + step)) for name in MOMENTS]
            for name, values in zip(MOMENTS, block, strict=True):
                checksums[name] = column_checksum(values, checksums[name])
            rows, known = self.length[first : first + step] + 1, self.last_obs_known[first : first + step]
            other = (block[0] != rows) & (known | (block[0] != rows - 1))  # stores of long ago counted the repeated row
            if other.any():
                raise self._damaged(f"episode/obs_count is not the rows of episode {first + int(np.argmax(other))}")
            yield first, *block
        written = dict(zip(EPISODE_COLUMNS[self.version], (self.content or ())[1:], strict=True))
        for name, checksum in checksums.items():
            if checksum != written[name]:
                raise self._damaged(checksum_fault(f"episode/{name}"))

    def terminated(self) -> np.ndarray:
        """Whether each episode ended by termination, bool [E], not to be written to; read when first asked for."""
        if self._terminated is None:
            column, last, ended = self.column("terminated"), self.offset + self.length, np.empty(len(self), bool)
            for start in range(0, self.num_rows, _BLOCK_TERMINATED):  # in the file's order, which disks like
                stop = min(start + _BLOCK_TERMINATED, self.num_rows)
                own = slice(*np.searchsorted(last, (start, stop)).tolist())
                ended[own] = column.read(start, stop)[last[own] - start].astype(bool)
            self._terminated = ended
        return self._terminated

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
        (source,) = self._episode_column("source", slice(index, index + 1))
        return Episode(
            task=task,
            obs=self.column("obs").read(start, stop + 1)[:, :obs_dim].copy(),
            action=self.column("action").read(start, stop)[:, :action_dim].copy(),
            reward=self.column("reward").read(start, stop).copy(),
            terminated=bool(self.column("terminated").read(stop, stop + 1)[0]),
            source=source,
            last_obs_known=bool(self.last_obs_known[index]),
        )

    def __iter__(self) -> Iterator[Episode]:
        """All episodes in order."""
        return (self[index] for index in range(len(self)))

    def __getstate__(self) -> dict[str, Any]:
        # Mapped files and HDF5 handles belong to the process that opened them.
        return {**self.__dict__, "_columns": {}}
