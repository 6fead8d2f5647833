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
    widths = [width for width, _ in table.tasks.values()]
    counts, means, squares = [0 for _ in widths], [np.zeros(w) for w in widths], [np.zeros(w) for w in widths]
    for index, store in enumerate(stores):
        own = episodes[table.store[episodes] == index]
        task_of = dict(zip(table.number[own].tolist(), table.task[own].tolist(), strict=True))
        for number, rows, total, spread in _moments(store, table.number[own]):
            task = task_of[number]
            mean = total[: widths[task]] / rows
            if not (np.isfinite(mean).all() and np.isfinite(spread[: widths[task]]).all()):
                raise _not_finite(store, number, list(table.tasks)[task])
            delta, whole = mean - means[task], counts[task] + rows
            squares[task] += spread[: widths[task]] + delta**2 * (counts[task] * rows / whole)
            means[task] += delta * (rows / whole)
            counts[task] = whole
    return {
        name: (means[task].tolist(), np.sqrt(squares[task] / max(counts[task], 1)).tolist())
        for task, name in enumerate(table.tasks)
    }


def _moments(store: EpisodeStore, numbers: np.ndarray) -> Iterator[tuple[int, int, np.ndarray, np.ndarray]]:
    """Number, rows, sum and M2 of some of a store's episodes, ascending; sums of at least their task's width."""
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
                moments = observation_moments(store.column("obs").read(start, start + rows)[:, :width])
            yield number, rows, *moments
        return
    wanted = np.zeros(len(store), bool)
    wanted[numbers] = True
    for first, counts, totals, spreads in store.moment_blocks():
        for place in np.flatnonzero(wanted[first : first + len(counts)]).tolist():
            yield first + place, int(counts[place]), totals[place], spreads[place]


def _not_finite(store: EpisodeStore, number: int, task: str) -> LitPWMError:
    return LitPWMError(
        f"The episode store {str(store.path)!r} cannot be trained on: the observations of episode {number} "
        f"({task!r}) are not finite. `lit-pwm data check {store.path}` lists all faults; write the store "
        f"anew without them, or leave the task out with data.tasks."
    )
