"""What a store holds."""

from __future__ import annotations

import itertools
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from datamodules.store import EpisodeStore

_BLOCK_ROWS = 65_536
_HISTOGRAM_BINS = 10


@dataclass(frozen=True, eq=False)
class TaskInfo:
    """What a store holds of one task.

    Attributes:
        obs_dim: width of observations.
        action_dim: width of actions.
        returns: sum of rewards of each episode [E].
        lengths: actions of each episode [E].
        terminated: episodes that ended by termination.
        sources: what acted → number of episodes.
    """

    obs_dim: int
    action_dim: int
    returns: np.ndarray
    lengths: np.ndarray
    terminated: int
    sources: Counter[str]

    def histogram(self, bins: int = _HISTOGRAM_BINS) -> tuple[np.ndarray, np.ndarray]:
        """Episodes in each of `bins` equal ranges of return, and the bins + 1 edges; of returns that are finite."""
        return np.histogram(self.returns[np.isfinite(self.returns)], bins=bins)


@dataclass(frozen=True, eq=False)
class StoreInfo:
    """What a store holds.

    Attributes:
        path: the file.
        num_bytes: its size.
        num_episodes: episodes of all tasks.
        num_rows: rows of all episodes.
        num_transitions: actions of all episodes.
        action_repeat: control steps for each action.
        version: of the file's format.
        clipped_actions: actions that were beyond ±1 by rounding, and which the writer clipped.
        clamped_rewards: rewards that were beyond the range of a model's bins, and which the writer was told to clamp.
        tasks: name → what there is of it, in index order.
    """

    path: Path
    num_bytes: int
    num_episodes: int
    num_rows: int
    num_transitions: int
    action_repeat: int
    version: int
    clipped_actions: int
    clamped_rewards: int
    tasks: dict[str, TaskInfo]


def info(path: str | os.PathLike[str]) -> StoreInfo:
    """What a store holds; reads its rewards once, a block at a time.

    Raises:
        LitPWMError: there is no such file, or it is no sound episode store.
    """
    store = EpisodeStore(path)
    returns = episode_returns(store)
    terminated, sources = store.terminated(), np.array(store.sources, dtype=object)
    tasks = {}
    for number, (name, (obs_dim, action_dim)) in enumerate(store.tasks.items()):
        own = store.task == number
        tasks[name] = TaskInfo(
            obs_dim, action_dim, returns[own], store.length[own], int(terminated[own].sum()), Counter(sources[own])
        )
    return StoreInfo(
        store.path,
        store.path.stat().st_size,
        len(store),
        store.num_rows,
        store.num_transitions,
        store.action_repeat,
        store.version,
        store.clipped_actions,
        store.clamped_rewards,
        tasks,
    )


def episode_returns(store: EpisodeStore) -> np.ndarray:
    """Sum of rewards of each episode, float64 [E]."""
    returns, reward = np.empty(len(store)), store.column("reward")
    for first, last in runs(store.length + 1):
        start, stop = int(store.offset[first]), int(store.offset[last - 1] + store.length[last - 1] + 1)
        values = reward.read(start, stop).astype(np.float64)
        values[store.offset[first:last] + store.length[first:last] - start] = 0.0  # the last rows' NaN
        with np.errstate(invalid="ignore"):  # infinities of both signs
            returns[first:last] = np.add.reduceat(values, store.offset[first:last] - start)
    return returns


def runs(rows: np.ndarray, block_rows: int = _BLOCK_ROWS) -> list[tuple[int, int]]:
    """Runs [first, last) of episodes of so many rows each that hold about a block of rows together."""
    block = (np.cumsum(rows) - 1) // block_rows
    edges = [0, *(np.flatnonzero(np.diff(block)) + 1).tolist(), len(rows)]
    return [(first, last) for first, last in itertools.pairwise(edges) if last > first]
