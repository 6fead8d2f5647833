"""What a store holds."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from datamodules.layout import observation_moments
from datamodules.store import EpisodeStore
from datamodules.store_statistics import MomentBlock, StoreStatistics, returns_of, statistics_of


@dataclass(frozen=True, eq=False)
class TaskInfo:
    """What a store holds of one task.

    Attributes:
        obs_dim: width of observations.
        action_dim: width of actions.
        lengths: actions of each episode [E].
        terminated: episodes that ended by termination.
        sources: what acted → number of episodes.
        whole_episodes: whether these are whole episodes and no pieces, whose sums of rewards are no returns.
        mean: of the returns, as all that follows, of those that are finite; 0 where there are none.
        std: their standard deviation, of all and not of a sample.
        least: the smallest.
        greatest: the largest.
        histogram: episodes in equal ranges of return from the least to the greatest [bins].
        spec: what the store says of its environment; empty where it says nothing.
    """

    obs_dim: int
    action_dim: int
    lengths: np.ndarray
    terminated: int
    sources: Counter[str]
    whole_episodes: bool
    mean: float
    std: float
    least: float
    greatest: float
    histogram: np.ndarray
    spec: Mapping[str, Any]

    @property
    def edges(self) -> np.ndarray:
        """The ends of the histogram's ranges [bins + 1]."""
        return np.histogram_bin_edges([self.least, self.greatest], len(self.histogram))


@dataclass(frozen=True, eq=False)
class StoreInfo:
    """What a store holds.

    Attributes:
        path: the file.
        num_bytes: its size.
        num_episodes: episodes of all tasks.
        num_rows: rows of all episodes.
        num_transitions: actions of all episodes.
        action_repeats: steps of the environment for each action, of each task in the order of `tasks`.
        version: of the file's format.
        hash: SHA-256 over the checksums of all it holds; None for version 1, which has no checksums.
        clipped_actions: actions that were beyond ±1 by rounding, and which the writer clipped.
        clamped_rewards: rewards that were beyond the range of a model's bins, and which the writer was told to clamp.
        tasks: name → what there is of it, in index order.
    """

    path: Path
    num_bytes: int
    num_episodes: int
    num_rows: int
    num_transitions: int
    action_repeats: tuple[int, ...]
    version: int
    hash: str | None
    clipped_actions: int
    clamped_rewards: int
    tasks: dict[str, TaskInfo]


def info(path: str | os.PathLike[str]) -> StoreInfo:
    """What a store holds; reads rows only where it keeps no statistics.

    Raises:
        LitPWMError: there is no such file, or it is no sound episode store.
    """
    store = EpisodeStore(path)
    kept, sources = statistics(store), np.array(store.sources, dtype=object)
    tasks = {}
    for number, (name, (obs_dim, action_dim)) in enumerate(store.tasks.items()):
        own = store.task == number
        tasks[name] = TaskInfo(
            obs_dim,
            action_dim,
            store.length[own],
            int(kept.task_terminated[number]),
            Counter(sources[own]),
            bool(store.whole_episodes[number]),
            *kept.return_statistics[number].tolist(),
            kept.return_histogram[number],
            store.task_specs[name],
        )
    return StoreInfo(
        store.path,
        store.path.stat().st_size,
        len(store),
        store.num_rows,
        store.num_transitions,
        tuple(map(store.action_repeat_of, store.tasks)),
        store.version,
        store.hash,
        store.clipped_actions,
        store.clamped_rewards,
        tasks,
    )


def statistics(store: EpisodeStore) -> StoreStatistics:
    """Those that a store keeps, or where it was written before they were kept, those of its rows."""
    if store.statistics is not None:
        return store.statistics
    moments = _scanned(store) if store.version == 1 else store.moment_blocks()
    return statistics_of(
        lambda name, start, stop: store.column(name).read(start, stop),
        moments, store.length + 1, store.task, len(store.tasks), store.obs_dim,
    )  # fmt: skip


def episode_returns(store: EpisodeStore) -> np.ndarray:
    """Sum of rewards of each episode, float64 [E]."""
    reward = store.column("reward")
    return returns_of(lambda _, start, stop: reward.read(start, stop), store.offset, store.length + 1)


def _scanned(store: EpisodeStore) -> Iterator[MomentBlock]:
    """The moments of the observations of a store that keeps none."""
    for number, (start, rows) in enumerate(zip(store.offset.tolist(), (store.length + 1).tolist(), strict=True)):
        width = store.tasks[store.task_names[store.task[number]]][0]
        total, spread = np.zeros((2, 1, store.obs_dim))
        with np.errstate(invalid="ignore"):
            total[0, :width], spread[0, :width] = observation_moments(
                store.column("obs").read(start, start + rows)[:, :width]
            )
        yield number, np.array([rows]), total, spread
