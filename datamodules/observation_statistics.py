"""Statistics of observations, merged from those of episodes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from lightning.pytorch.utilities.rank_zero import rank_zero_info

from datamodules.episodes import EpisodeTable
from datamodules.layout import observation_moments
from datamodules.store import EpisodeStore
from lit_pwm.errors import LitPWMError


def observation_statistics(
    stores: Sequence[EpisodeStore], table: EpisodeTable, episodes: np.ndarray
) -> dict[str, tuple[list[float], list[float]]]:
    """Mean and standard deviation of each observation entry, for each task, over some of the table's episodes.

    Each episode's count, sum and M2 are read from its store, or where the store is of version 1, which holds none,
    computed from its rows, with a notice. They are merged in float64, an episode at a time, by Chan's formula (Chan,
    Golub, LeVeque 1983), so that entries with a large mean keep their digits. As a writer sums what a reader would, in
    the same order, both ways give the same to the bit where store and statistics are made by one version of numpy, and
    to a relative 1e-12 elsewhere.

    Args:
        stores: the files.
        table: the chosen episodes.
        episodes: indices in the table, ascending.

    Raises:
        LitPWMError: an observation is not finite, or what a store holds of its episodes is not what was written.
    """
    merged = [_Merged(width) for width, _ in table.tasks.values()]
    for index, store in enumerate(stores):
        own = episodes[table.store[episodes] == index]
        task_of = np.full(len(store), -1)
        task_of[table.number[own]] = table.task[own]
        for numbers, counts, totals, spreads in _moments(store, table.number[own]):
            for task in np.unique(task_of[numbers]).tolist():
                mine = task_of[numbers] == task
                width = len(merged[task].mean)
                means, squares = totals[mine, :width] / counts[mine, None], spreads[mine, :width]
                bad = ~(np.isfinite(means) & np.isfinite(squares)).all(axis=1)
                if bad.any():
                    raise _not_finite(store, int(numbers[mine][np.argmax(bad)]), list(table.tasks)[task])
                merged[task].add(counts[mine], means, squares)
    return {name: (own.mean.tolist(), own.deviation().tolist()) for name, own in zip(table.tasks, merged, strict=True)}


class _Merged:
    """Count, mean and M2 of all episodes of a task so far."""

    def __init__(self, width: int) -> None:
        self.count, self.mean, self.squares = 0, np.zeros(width), np.zeros(width)

    def add(self, counts: np.ndarray, means: np.ndarray, squares: np.ndarray) -> None:
        """Merge episodes one after another: their rows [E], means [E, O] and M2 [E, O]."""
        for rows, mean, spread in zip(counts.tolist(), means, squares, strict=True):
            delta, whole = mean - self.mean, self.count + rows
            self.squares += spread + delta**2 * (self.count * rows / whole)
            self.mean += delta * (rows / whole)
            self.count = whole

    def deviation(self) -> np.ndarray:
        """The standard deviation of each entry [O]."""
        return np.sqrt(self.squares / max(self.count, 1))


def _moments(
    store: EpisodeStore, numbers: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
    """Of some of a store's episodes, ascending and in blocks: numbers [E], rows [E], sums and M2 [E, O or more]."""
    if not len(numbers):
        return
    if store.version == 1:
        rank_zero_info(
            f"The episode store {str(store.path)!r} has format version 1, which holds no statistics of observations: "
            f"the rows of {len(numbers)} episodes are read for them, once in this run. Stores written from now on hold "
            f"them."
        )
        for number in numbers.tolist():
            start, rows = int(store.offset[number]), int(store.length[number]) + 1
            width, _ = store.tasks[store.task_names[store.task[number]]]
            with np.errstate(invalid="ignore"):  # what is not finite is refused by its moments
                total, spread = observation_moments(store.column("obs").read(start, start + rows)[:, :width])
            yield np.array([number]), np.array([rows]), total[None], spread[None]
        return
    wanted = np.zeros(len(store), bool)
    wanted[numbers] = True
    for first, counts, totals, spreads in store.moment_blocks():
        places = np.flatnonzero(wanted[first : first + len(counts)])
        yield first + places, counts[places], totals[places], spreads[places]


def _not_finite(store: EpisodeStore, number: int, task: str) -> LitPWMError:
    return LitPWMError(
        f"The episode store {str(store.path)!r} cannot be trained on: the observations of episode {number} "
        f"({task!r}) are not finite. `lit-pwm data check {store.path}` lists all faults; write the store "
        f"anew without them, or leave the task out with data.tasks."
    )
