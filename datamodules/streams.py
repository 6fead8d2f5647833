"""Streams of slices, and the loader that hands out their batches together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from datamodules.episodes import EpisodeTable
from datamodules.guarding import Guard
from datamodules.loader import SliceDataset, SliceLoader
from datamodules.numbering import Binding
from datamodules.sampler import Windows
from datamodules.storages import FileStorage, Storage
from datamodules.store import EpisodeStore


@dataclass(frozen=True, eq=False)
class Stream:
    """What the batches of a stream are made from.

    Attributes:
        stores: the files.
        table: the chosen episodes.
        storage: where their rows live.
        batches: step → windows of those episodes.
        horizon: transitions of a slice that are read; 0 for its first observation alone.
        binding: numbering of tasks and widths.
        second: a stream whose batches come with this one's.
        every: at every n-th step.
        terminations: whether batches say which transitions terminate, and which there are: those of all streams do
            where any of their episodes terminated.
    """

    stores: Sequence[EpisodeStore]
    table: EpisodeTable
    storage: Storage
    batches: Callable[[int], Windows]
    horizon: int
    binding: Binding
    second: Stream | None = None
    every: int = 1
    terminations: bool = False

    def loader(
        self, length: int, first_step: int, restart: bool, num_workers: int, pin_memory: bool, prefetch: int
    ) -> SliceLoader:
        """Hands out batches, `length` in an iteration; arguments are `SliceLoader`'s."""
        # Rows in memory were all looked at when they were read.
        guard = self._guard() if isinstance(self.storage, FileStorage) else None
        return SliceLoader(self._dataset(length), first_step, restart, num_workers, pin_memory, guard, prefetch)

    def _dataset(self, length: int) -> SliceDataset:
        second = None if self.second is None else self.second._dataset(length)
        return SliceDataset(
            self.storage, self.table, self.batches, self.horizon, self.binding, length, second, self.every,
            self.terminations,
        )  # fmt: skip

    def _guard(self) -> Guard:
        second = None if self.second is None else self.second._guard()
        return Guard(self.stores, self.table, self.batches, lambda: self.binding.task_ids, second)
