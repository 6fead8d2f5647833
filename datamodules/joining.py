"""The episodes of two streams as one table, in which each is once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from datamodules.episodes import EpisodeTable, choose
from datamodules.store import EpisodeStore


@dataclass(frozen=True, eq=False)
class Joined:
    """Two streams' episodes: those of the first with the numbers they have there, then what only the second has.

    Rows that both use are read, and held in memory, once.

    Attributes:
        stores: the first stream's, then the second's others.
        table: the episodes; tasks are numbered likewise.
        places: index in `table` of each of the second stream's episodes [E of the second].
    """

    stores: list[EpisodeStore]
    table: EpisodeTable
    places: np.ndarray


def same_objects(stores: Sequence[EpisodeStore], known: Sequence[EpisodeStore]) -> list[EpisodeStore]:
    """The stores, by the objects that are known of the same files."""
    by_file = {store.identity[:2]: store for store in known}
    return [by_file.get(store.identity[:2], store) for store in stores]


def join(
    stores: Sequence[EpisodeStore], table: EpisodeTable, others: Sequence[EpisodeStore], second: EpisodeTable
) -> Joined:
    """Join the second stream's episodes to the first's.

    Args:
        stores: the first stream's.
        table: its episodes.
        others: the second stream's, the same objects where they are the same files.
        second: its episodes.

    Raises:
        LitPWMError: the stores disagree on a task's widths or on action repeats.
    """
    whole = [*stores, *(store for store in others if store not in stores)]
    choose(whole, None)  # refuses what cannot be used together
    tasks = table.tasks | {name: dims for name, dims in second.tasks.items() if name not in table.tasks}
    origin = np.array([whole.index(store) for store in others])[second.store]
    numbers = {name: number for number, name in enumerate(tasks)}
    task = np.array([numbers[name] for name in second.tasks])[second.task]
    # Episodes of a table are ascending by store and number, so that one search finds them.
    span = 1 + max(len(store) for store in whole)
    known, wanted = table.store * span + table.number, origin * span + second.number
    places = np.minimum(np.searchsorted(known, wanted), len(known) - 1)
    new = known[places] != wanted
    if not new.any():
        return Joined(whole, table, places)
    places[new] = len(table) + np.arange(int(new.sum()))
    ends = (second.last_obs_known, second.terminated)
    added = (origin, second.number, second.offset, second.length, task, *ends)
    ends = (table.last_obs_known, table.terminated)
    own = (table.store, table.number, table.offset, table.length, table.task, *ends)
    columns = (np.concatenate([one, other[new]]) for one, other in zip(own, added, strict=True))
    return Joined(whole, EpisodeTable(tasks, *columns), places)
