"""Statistics of observations, in one pass over the rows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from datamodules.episodes import EpisodeTable
from datamodules.store import EpisodeStore
from lit_pwm.errors import LitPWMError


def observation_statistics(
    stores: Sequence[EpisodeStore], table: EpisodeTable, episodes: np.ndarray
) -> dict[str, tuple[list[float], list[float]]]:
    """Mean and standard deviation of each observation entry, for each task, over some of the table's episodes.

    One pass in float64, an episode at a time, merged by Chan's formula (Chan, Golub, LeVeque 1983), so that entries
    with a large mean keep their digits.

    Raises:
        LitPWMError: an observation is not finite.
    """
    statistics = {}
    for task, (name, (width, _)) in enumerate(table.tasks.items()):
        count, mean, squares = 0, np.zeros(width), np.zeros(width)
        for episode in episodes[table.task[episodes] == task]:
            start, rows = int(table.offset[episode]), int(table.length[episode]) + 1
            values = stores[table.store[episode]].column("obs").read(start, start + rows)[:, :width].astype(np.float64)
            own = values.mean(axis=0)
            if not np.isfinite(own).all():
                store, number = stores[table.store[episode]], int(table.number[episode])
                raise LitPWMError(
                    f"The episode store {str(store.path)!r} cannot be trained on: the observations of episode {number} "
                    f"({name!r}) are not finite. `lit-pwm data check {store.path}` lists all faults; write the store "
                    f"anew without them, or leave the task out with data.tasks."
                )
            delta, total = own - mean, count + rows
            squares += ((values - own) ** 2).sum(axis=0) + delta**2 * (count * rows / total)
            mean += delta * (rows / total)
            count = total
        statistics[name] = (mean.tolist(), np.sqrt(squares / max(count, 1)).tolist())
    return statistics
