"""What a card shows of a store, which may be larger than memory: read in one pass of rewards and a sample of rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from datamodules.info import statistics
from datamodules.store import EpisodeStore
from datamodules.store_statistics import StoreStatistics, returns_of
from lit_pwm.errors import LitPWMError

ROWS_OF_TASK, ROWS_OF_STORE, _NUMBERS = 10_000, 400_000, 40_000_000
"""The most rows that are drawn of a task and of a store, and the most numbers of observations of a store."""
_BLOCK = 1000


@dataclass(frozen=True, eq=False)
class TaskSample:
    """One task of a store.

    Attributes:
        name: the task's.
        number: its index in the store.
        episodes: numbers of its episodes [E].
        lengths: actions of each [E].
        returns: sum of rewards of each, float64 [E].
        terminated: whether each ended by termination, bool [E].
        sources: what acted in each, E texts.
        whole: whether its episodes are whole rather than pieces of episodes.
        obs: observations of the drawn rows, float32 [n, O].
        action: actions taken there, float32 [n, A].
    """

    name: str
    number: int
    episodes: np.ndarray
    lengths: np.ndarray
    returns: np.ndarray
    terminated: np.ndarray
    sources: np.ndarray
    whole: bool
    obs: np.ndarray
    action: np.ndarray

    @property
    def transitions(self) -> int:
        """Actions of all episodes."""
        return int(self.lengths.sum())

    def by_source(self) -> dict[str, np.ndarray]:
        """Returns of the episodes of each source, those with the most episodes first."""
        order = [source for source, _ in Counter(self.sources.tolist()).most_common()]
        return {source: self.returns[self.sources == source] for source in order}

    def examples(self) -> list[int]:
        """Places of the episode of the greatest return and of the one in the middle, or of the only one."""
        order = np.argsort(self.returns, kind="stable")
        return list(dict.fromkeys([int(order[-1]), int(order[(len(order) - 1) // 2])]))


@dataclass(frozen=True, eq=False)
class StoreSample:
    """A store.

    Attributes:
        store: it.
        tasks: those that have episodes, in the store's order.
        statistics: of all tasks of the store.
    """

    store: EpisodeStore
    tasks: list[TaskSample]
    statistics: StoreStatistics


def sample_store(store: EpisodeStore, advance: Callable[[int], None] = lambda rows: None) -> StoreSample:
    """Read what a card shows.

    Args:
        store: the store.
        advance: takes numbers of rows whose rewards have been read; those of the whole store in all.

    Raises:
        LitPWMError: its rows cannot be read, or hold numbers that are not finite.
    """
    reward = store.column("reward")

    def read(_: str, start: int, stop: int) -> np.ndarray:
        advance(stop - start)
        return reward.read(start, stop)

    returns = returns_of(read, store.offset, store.length + 1)
    terminated, sources = store.terminated(), np.array(store.sources, dtype=object)
    present = np.unique(store.task).tolist()
    tasks = []
    for number in present:
        own = np.flatnonzero(store.task == number)
        obs_dim, action_dim = store.tasks[store.task_names[number]]
        most = min(ROWS_OF_STORE, _NUMBERS // obs_dim) // len(present)
        rows = _drawn_rows(store, own, number, most)
        tasks.append(
            TaskSample(
                store.task_names[number],
                number,
                own,
                store.length[own],
                returns[own],
                terminated[own],
                sources[own],
                bool(store.whole_episodes[number]),
                _gathered(store, "obs", rows, obs_dim),
                _gathered(store, "action", rows, action_dim),
            )
        )
    sample = StoreSample(store, tasks, statistics(store))
    for task in tasks:
        scales = sample.statistics.obs_mean[task.number], sample.statistics.obs_std[task.number]
        if not all(np.isfinite(values).all() for values in (task.returns, task.obs, task.action, *scales)):
            raise LitPWMError(
                f"The episode store {str(store.path)!r} holds numbers of {task.name!r} that are not finite, of which "
                f"no card can be made. `lit-pwm data check {store.path}` lists all faults; write the store anew."
            )
    return sample


def _drawn_rows(store: EpisodeStore, episodes: np.ndarray, task: int, most: int) -> np.ndarray:
    """Rows of a task's transitions, ascending: one at random of each of as many equal parts, the same every time.

    Equal steps would meet the same step of every episode where these are equally long.
    """
    ends = np.cumsum(store.length[episodes])
    total = int(ends[-1])
    count = max(1, min(total, most, ROWS_OF_TASK))
    within = np.random.Generator(np.random.Philox(task)).random(count)
    drawn = np.minimum(((np.arange(count) + within) * (total / count)).astype(np.int64), total - 1)
    place = np.searchsorted(ends, drawn, side="right")
    return store.offset[episodes[place]] + drawn - (ends[place] - store.length[episodes[place]])


def _gathered(store: EpisodeStore, name: str, rows: np.ndarray, width: int) -> np.ndarray:
    column = store.column(name)
    return np.concatenate(
        [column.windows(rows[first : first + _BLOCK], 1, width)[0] for first in range(0, len(rows), _BLOCK)]
    )
