"""What follows from a store's columns and is kept in its attributes: counts, returns, scales of observations."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, fields

import numpy as np

from datamodules.layout import HISTOGRAM_BINS, MOMENTS, block_rows, runs

_BLOCK_EPISODES = 65_536
ReadRows = Callable[[str, int, int], np.ndarray]
"""Some rows of a column: its name, the first, the one after the last."""
MomentBlock = tuple[int, np.ndarray, np.ndarray, np.ndarray]
"""Successive episodes: the first one's number, and of each the rows [e], sum and M2 [e, O] of its observations."""


@dataclass(frozen=True, eq=False)
class StoreStatistics:
    """Statistics of each of a store's K tasks; zeros for a task without episodes.

    Attributes:
        task_episodes: episodes, int64 [K].
        task_transitions: actions, int64 [K].
        task_terminated: episodes that ended by termination, int64 [K].
        return_statistics: of the sums of rewards of its episodes the mean, standard deviation (of all, not of a
            sample), least and greatest, float64 [K, 4].
        return_histogram: episodes in equal ranges between the least and the greatest, int64 [K, bins].
        obs_mean: mean of each entry of observations, float64 [K, O], 0 in padding.
        obs_std: standard deviation likewise.
    """

    task_episodes: np.ndarray
    task_transitions: np.ndarray
    task_terminated: np.ndarray
    return_statistics: np.ndarray
    return_histogram: np.ndarray
    obs_mean: np.ndarray
    obs_std: np.ndarray

    def arrays(self) -> dict[str, np.ndarray]:
        """By the names of the attributes."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def differing(self, others: StoreStatistics) -> np.ndarray:
        """Which tasks' statistics are not others', to the rounding of another order of summing, bool [K]."""
        differs = np.zeros(len(self.task_episodes), bool)
        for name, values in self.arrays().items():
            theirs = getattr(others, name)
            spread = np.abs(self.obs_mean).max(axis=1) + self.obs_std.max(axis=1)
            if name.startswith("return_s"):
                spread = np.abs(self.return_statistics[:, 2:]).max(axis=1)
            near = 1e-9 * spread + 1e-6 * np.abs(values).reshape(len(values), -1).max(axis=1)
            near = near if values.dtype.kind == "f" else np.zeros(len(values))
            differs |= ~(np.abs(values - theirs).reshape(len(values), -1).max(axis=1) <= near)
        return differs


def statistics_of(
    read: ReadRows, moments: Iterable[MomentBlock], rows: np.ndarray, task: np.ndarray, tasks: int, obs_dim: int
) -> StoreStatistics:
    """The statistics of a store, of whose rows only rewards and terminations are read, a block at a time.

    Args:
        read: reads rows.
        moments: what is known of the observations of all episodes, in order.
        rows: T + 1 of each episode [E].
        task: index of each episode's task [E].
        tasks: number of tasks K.
        obs_dim: padded width of observations.
    """
    offset = np.cumsum(rows) - rows
    returns = returns_of(read, offset, rows)
    terminated = terminations_of(read, offset, rows)
    per_task = {"minlength": tasks}
    statistics, histogram = np.zeros((tasks, 4)), np.zeros((tasks, HISTOGRAM_BINS), np.int64)
    for number in np.unique(task).tolist():
        own = returns[task == number]
        own = own[np.isfinite(own)]  # of sound stores all
        if len(own):
            statistics[number] = own.mean(), own.std(), own.min(), own.max()
            histogram[number] = np.histogram(own, HISTOGRAM_BINS)[0]
    mean, deviation = _scales(moments, task, tasks, obs_dim)
    return StoreStatistics(
        np.bincount(task, **per_task),
        np.bincount(task, rows - 1, **per_task).astype(np.int64),
        np.bincount(task[terminated], **per_task),
        statistics,
        histogram,
        mean,
        deviation,
    )


def moment_blocks(read: ReadRows, episodes: int, obs_dim: int) -> Iterator[MomentBlock]:
    """The columns of moments of a store of so many episodes, in blocks of about 100 MB; they are not verified."""
    step = block_rows(obs_dim, _BLOCK_EPISODES)
    for first in range(0, episodes, step):
        last = min(first + step, episodes)
        count, total, squares = (read(f"episode/{name}", first, last) for name in MOMENTS)
        yield first, count, total, squares


def returns_of(read: ReadRows, offset: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Sum of rewards of episodes that lie one after another, float64 [E].

    Args:
        read: reads rows.
        offset: first row of each.
        rows: T + 1 of each.
    """
    returns = np.empty(len(rows))
    for first, last in runs(rows):
        start, stop = int(offset[first]), int(offset[last - 1] + rows[last - 1])
        values = read("reward", start, stop).astype(np.float64)
        values[offset[first:last] + rows[first:last] - 1 - start] = 0.0  # the last rows' NaN
        with np.errstate(invalid="ignore"):  # infinities of both signs
            returns[first:last] = np.add.reduceat(values, offset[first:last] - start)
    return returns


def terminations_of(read: ReadRows, offset: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Whether episodes that lie one after another ended by termination, bool [E]; arguments as of `returns_of`."""
    terminated = np.empty(len(rows), bool)
    for first, last in runs(rows):
        start, stop = int(offset[first]), int(offset[last - 1] + rows[last - 1])
        ends = offset[first:last] + rows[first:last] - 1 - start
        terminated[first:last] = read("terminated", start, stop)[ends] != 0
    return terminated


def _scales(
    moments: Iterable[MomentBlock], task: np.ndarray, tasks: int, obs_dim: int
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each task's observations [K, O], merged block by block (Chan et al. 1983)."""
    count, mean, squares = np.zeros((tasks, 1)), np.zeros((tasks, obs_dim)), np.zeros((tasks, obs_dim))
    with np.errstate(invalid="ignore", over="ignore"):  # of damaged stores, where others say so
        for first, rows, total, spread in moments:
            block_task = task[first : first + len(rows)]
            for number in np.unique(block_task).tolist():
                own = block_task == number
                weight = rows[own, None].astype(np.float64)
                both = count[number] + weight.sum()
                own_mean = total[own].sum(axis=0) / weight.sum()
                own_squares = (spread[own] + weight * (total[own] / weight - own_mean) ** 2).sum(axis=0)
                delta = own_mean - mean[number]
                squares[number] += own_squares + delta**2 * (count[number] * weight.sum() / both)
                mean[number] += delta * (weight.sum() / both)
                count[number] = both
        return mean, np.sqrt(squares / np.maximum(count, 1))
