"""What each rank has of a stream at each step, and that there is enough of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from lightning.pytorch.utilities.rank_zero import rank_zero_info

from datamodules.episodes import EpisodeTable
from datamodules.loader import DrawnBatches, FixedBatches
from datamodules.sampler import Balance, SliceSampler, legal_starts
from datamodules.splitting import Split, require_slices
from datamodules.task_weights import weights_of


def training_batches(
    table: EpisodeTable,
    held: np.ndarray,
    horizon: int,
    batch_size: int,
    balance: Balance,
    seed: int,
    ranks: tuple[int, int],
    paths: Sequence[str],
    option: str = "data",
    stream: int = 0,
    places: np.ndarray | None = None,
    task_weights: Mapping[str, float] | None = None,
) -> DrawnBatches:
    """Batches of training slices.

    Args:
        table: a stream's episodes.
        held: which of them are held out, bool [E].
        horizon: transitions of a slice.
        batch_size: slices of each rank.
        balance: as `SliceSampler`'s.
        seed: of the draws.
        ranks: this rank's number, and how many there are.
        paths: the stores', for errors.
        option: where the stream's options are, for errors.
        stream: what sets its draws apart from those of other streams of one seed.
        places: numbers of the episodes for the storage; those of the table if not given.
        task_weights: task name → how often it is drawn from relative to others, 1 if it is not named.

    Raises:
        LitPWMError: a task offers no slice, there are fewer slices than a batch takes, or weights are of other tasks.
    """
    # An episode that is not used counts as one without slices, so that windows name episodes of the whole table.
    lengths = np.where(held, 0, table.length)
    require_slices(table, lengths, horizon, paths, option)
    weights = weights_of(table.tasks, task_weights, balance, option)
    sampler = SliceSampler(lengths, horizon, table.task, balance, seed, stream, table.terminated, weights)
    rank, world_size = ranks
    sampler.require_enough(batch_size, world_size, paths, option)
    short = int(((legal_starts(lengths, horizon, table.terminated) == 0) & ~held).sum())
    if short:
        rank_zero_info(
            f"{short} of {int((~held).sum())} training episodes are shorter than the horizon of {horizon} and are not "
            f"used{'' if option == 'data' else f' by {option}'}."
        )
    return DrawnBatches(sampler, batch_size * world_size, rank, world_size, places)


def validation_batches(
    table: EpisodeTable, found: Split, count: int, batch_size: int, balance: Balance, ranks: tuple[int, int]
) -> FixedBatches | None:
    """At most `count` batches of fixed slices of the held-out episodes; None where there are none.

    Args:
        table: a stream's episodes.
        found: which of them are held out.
        count: the number of batches.
        batch_size: slices of each rank.
        balance: as `SliceSampler`'s.
        ranks: this rank's number, and how many there are.
    """
    if not count:
        return None
    for notice in found.notices:
        rank_zero_info(notice)
    if not found.held.any():
        return None
    rank, world_size = ranks
    whole = batch_size * world_size
    lengths = np.where(found.held, table.length, 0)
    sampler = SliceSampler(lengths, found.horizon, table.task, balance, terminated=table.terminated)
    batches = FixedBatches(sampler.spread(count * whole), whole, rank, world_size)
    return batches if len(batches) else None
