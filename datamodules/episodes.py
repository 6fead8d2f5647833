"""The episodes that a datamodule has chosen from its stores, and how they are split."""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from datamodules.store import EpisodeStore
from lit_pwm.errors import LitPWMError, did_you_mean


@dataclass(frozen=True, eq=False)
class EpisodeTable:
    """E episodes from several stores.

    Attributes:
        tasks: chosen task name → (obs_dim, action_dim), in the stores' order.
        store: index of each episode's store [E].
        number: index of each episode in its store [E].
        offset: first row of each episode in its store [E].
        length: actions T of each episode [E].
        task: index of each episode's task in `tasks` [E].
    """

    tasks: dict[str, tuple[int, int]]
    store: np.ndarray
    number: np.ndarray
    offset: np.ndarray
    length: np.ndarray
    task: np.ndarray

    def __len__(self) -> int:
        """The number of episodes."""
        return len(self.offset)

    def runs(self) -> list[tuple[int, int]]:
        """Runs [first, last) of episodes that lie one after another in one store."""
        breaks = np.flatnonzero((np.diff(self.number) != 1) | (np.diff(self.store) != 0)) + 1
        edges = [0, *breaks.tolist(), len(self)]
        return list(itertools.pairwise(edges))


def choose(stores: Sequence[EpisodeStore], names: Sequence[str] | None) -> EpisodeTable:
    """The episodes of some tasks, store after store.

    Args:
        stores: where to look; a task is the same in all if its name is.
        names: the tasks; None for all that have episodes.

    Raises:
        LitPWMError: a task has no episodes, or other widths in one store than in another.
    """
    dims: dict[str, tuple[int, int]] = {}
    repeats = {store.action_repeat for store in stores}
    if len(repeats) > 1:
        raise LitPWMError(
            f"The stores {_listed(stores)} were collected with different action repeats, {sorted(repeats)}, so that "
            f"their actions and rewards mean different things. Use stores of one action repeat."
        )
    counts: dict[str, int] = {}
    for store in stores:
        for number, (name, widths) in enumerate(store.tasks.items()):
            if dims.setdefault(name, widths) != widths:
                raise LitPWMError(
                    f"The task {name!r} has widths (obs, action) {widths} in the store {str(store.path)!r} and "
                    f"{dims[name]} in one before it. Stores that are used together must agree."
                )
            counts[name] = counts.get(name, 0) + int((store.task == number).sum())
    there = [name for name, count in counts.items() if count]
    if not there or (names is not None and not names):
        raise LitPWMError(f"No episodes are chosen from {_listed(stores)}. {did_you_mean('', there)}")
    for name in names or ():
        if name not in there:
            raise LitPWMError(
                f"There are no episodes of the task {name!r} in {_listed(stores)}. {did_you_mean(name, there)}"
            )
    chosen = {name: dims[name] for name in there if names is None or name in names}
    parts = []
    for index, store in enumerate(stores):
        lookup = np.array([list(chosen).index(name) if name in chosen else -1 for name in store.tasks] or [-1])
        task = lookup[store.task]
        number = np.flatnonzero(task >= 0)
        parts.append((np.full(len(number), index), number, store.offset[number], store.length[number], task[number]))
    return EpisodeTable(chosen, *(np.concatenate(column) for column in zip(*parts, strict=True)))


def _listed(stores: Sequence[EpisodeStore]) -> str:
    return ", ".join(repr(str(store.path)) for store in stores)


def held_out(table: EpisodeTable, fraction: float) -> np.ndarray:
    """Which episodes are held out for validation, bool [E].

    Of every task of every store, the fraction, rounded, but at least one episode where there are two or more. Which
    ones depends on the task's name and its number of episodes in that store alone: not on the run's seed, so that runs
    with different seeds can be compared, nor on which other tasks and stores are used, so that an episode held out
    once stays held out when newly collected stores join.
    """
    held = np.zeros(len(table), bool)
    if fraction == 0:
        return held
    for task, name in enumerate(table.tasks):
        own = np.flatnonzero(table.task == task)
        for store in np.unique(table.store[own]):
            there = own[table.store[own] == store]
            count = min(max(1, round(fraction * len(there))), len(there) - 1)
            seed = np.random.SeedSequence([zlib.crc32(name.encode()), len(there)])
            held[np.random.Generator(np.random.Philox(seed)).permutation(there)[:count]] = True
        if len(own) > 1 and not held[own].any():
            held[own[-1]] = True  # stores with a single episode each
    return held
