"""The DataLoader of slices: whole batches, in the order of steps, whatever the number of worker processes."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from datamodules.episodes import EpisodeTable
from datamodules.guarding import Guard
from datamodules.making_ahead import made_ahead, pinned
from datamodules.numbering import Binding
from datamodules.sampler import SliceSampler, Windows
from datamodules.storages import Storage
from datamodules.transition_marks import clear_padding, transition_marks
from lit_pwm.batch import Batch

T = TypeVar("T")


@dataclass(frozen=True)
class DrawnBatches:
    """A rank's share of what a sampler draws at each step.

    Attributes:
        sampler: draws.
        batch_size: slices of a whole batch, all ranks together.
        rank: whose share.
        world_size: ranks that share a batch.
        places: the storage's number of each of the sampler's episodes; the sampler's own if not given.
    """

    sampler: SliceSampler
    batch_size: int
    rank: int
    world_size: int
    places: np.ndarray | None = None

    def __call__(self, step: int) -> Windows:
        """The share at a step."""
        windows = self.sampler.sample(step, self.batch_size, self.rank, self.world_size)
        return windows if self.places is None else Windows(self.places[windows.episode], windows.start)


class FixedBatches:
    """A rank's share of a fixed set of windows, in equal parts for all ranks.

    Args:
        windows: all ranks' windows.
        batch_size: windows of a whole batch, all ranks together; the last one may be smaller.
        rank: whose share.
        world_size: ranks that share a batch; what does not divide by it is left out.
    """

    def __init__(self, windows: Windows, batch_size: int, rank: int, world_size: int) -> None:
        count = len(windows.episode) // world_size * world_size
        self._parts = []
        for first in range(0, count, batch_size):
            share = (min(first + batch_size, count) - first) // world_size
            mine = slice(first + rank * share, first + (rank + 1) * share)
            self._parts.append(Windows(windows.episode[mine], windows.start[mine]))

    def __len__(self) -> int:
        """The number of batches."""
        return len(self._parts)

    def __call__(self, step: int) -> Windows:
        """The share of a batch; after the last one comes the first again."""
        return self._parts[step % len(self._parts)]


class SliceDataset(IterableDataset[Batch]):
    """Batches of consecutive steps.

    Args:
        storage: where the rows live.
        table: the episodes.
        batches: step → windows.
        horizon: transitions of a slice.
        binding: numbering of tasks and widths.
        length: batches of one iteration.
        second: a second stream, whose batch of the same step is then under `second`.
        every: at every n-th step.
        terminations: whether batches say which transitions terminate, and which there are.
    """

    def __init__(
        self,
        storage: Storage,
        table: EpisodeTable,
        batches: Callable[[int], Windows],
        horizon: int,
        binding: Binding,
        length: int,
        second: SliceDataset | None = None,
        every: int = 1,
        terminations: bool = False,
    ) -> None:
        self.first_step, self.length = 0, length
        self._storage, self._table, self._batches = storage, table, batches
        self._marked = terminations or not table.last_obs_known.all()
        self._terminations = terminations
        self._horizon, self._binding, self._second, self._every = horizon, binding, second, every

    def __len__(self) -> int:
        """Batches of one iteration."""
        return self.length

    def __iter__(self) -> Iterator[Batch]:
        """Every step's batch; of W workers, each makes every W-th, and the DataLoader takes from them in turn."""
        worker = get_worker_info()
        offset, stride = (worker.id, worker.num_workers) if worker else (0, 1)
        return (self.batch(self.first_step + i) for i in range(offset, self.length, stride))

    def batch(self, step: int) -> Batch:
        """The batch of a step."""
        windows, binding = self._batches(step), self._binding
        obs, action, reward = self._storage.slices(windows, self._horizon, binding.obs_dim, binding.action_dim)
        task = torch.from_numpy(binding.task_ids[self._table.task[windows.episode]]).to(obs.device)
        batch = Batch(obs=obs, action=action, reward=reward, task=task)
        if self._marked:
            marks = transition_marks(windows, self._horizon, self._table, obs.device)
            batch["consistent"] = marks.consistent
            if self._terminations:
                batch["terminated"], batch["valid"] = marks.terminated, marks.valid
                clear_padding(obs, action, reward, marks.valid)
        if self._second is not None and step % self._every == 0:
            batch["second"] = self._second.batch(step)
        return batch


class SliceLoader:
    """Iterates over batches and counts those it has handed out.

    An iteration over a training loader goes on where the one before stopped, so that epochs do not repeat. The count is
    its state, which Lightning saves and restores with a checkpoint: a resumed run goes on with the very next batch.

    It is no DataLoader, to which Lightning would give other samplers, not knowing that ranks have their shares already.

    Args:
        dataset: makes the batches.
        first_step: the step of the first batch.
        restart: begin every iteration with the first step again, as validation does.
        num_workers: processes that make batches; with 0 this one does.
        guard: looks at files and batches, where the rows lie in files.
        pin_memory: put batches in page-locked memory, from which they are copied to a GPU faster, and while it works.
        prefetch: batches made ahead, by each of the processes or by the thread; 0 makes each when it is asked for.

    Attributes:
        next_step: the step of the next batch.
    """

    def __init__(
        self,
        dataset: SliceDataset,
        first_step: int = 0,
        restart: bool = False,
        num_workers: int = 0,
        pin_memory: bool = False,
        guard: Guard | None = None,
        prefetch: int = 0,
    ) -> None:
        self._guard, self._prefetch, self._pin_memory = guard, prefetch, pin_memory
        self.next_step, self._first_step, self._restart, self._slices = first_step, first_step, restart, dataset
        # A DataLoader draws a seed at every iteration, here from a generator of its own: the state of torch's would
        # depend on how often loaders were begun. Nothing random happens in its workers.
        self._workers: DataLoader | None = (
            None
            if not num_workers
            else DataLoader(
                dataset,
                batch_size=None,
                collate_fn=_as_it_is,
                num_workers=num_workers,
                pin_memory=pin_memory,
                generator=torch.Generator(),
                prefetch_factor=max(prefetch, 1),
            )
        )

    def __len__(self) -> int:
        """Batches of one iteration."""
        return len(self._slices)

    def __iter__(self) -> Iterator[Batch]:
        """Hand out as many batches as the loader is long."""
        if self._restart:
            self.next_step = self._first_step
        first = self._slices.first_step = self.next_step
        self._require_unchanged()
        if self._workers is not None:
            batches = self._of_workers(iter(self._workers))
        else:
            batches = made_ahead(self._made_here, range(first, first + len(self)), self._prefetch)
        with contextlib.closing(batches):
            for batch in batches:
                # Counted before it is handed out: whoever holds a batch finds it counted.
                self.next_step += 1
                yield batch
                self._require_unchanged()  # whatever has been made ahead

    def _require_unchanged(self) -> None:
        if self._guard is not None:
            self._guard.require_unchanged()

    def _look(self, batch: Batch, step: int) -> None:
        if self._guard is not None:
            self._guard.look(batch, step)

    def _made_here(self, step: int) -> Batch:
        self._require_unchanged()
        self._look(batch := self._slices.batch(step), step)
        return pinned(batch) if self._pin_memory else batch

    def _of_workers(self, batches: Iterator[Batch]) -> Generator[Batch, None, None]:
        """The worker processes' batches, all looked at in this process, where an error stays a sentence."""
        step = self.next_step
        while True:
            self._require_unchanged()
            try:
                batch = next(batches)
            except StopIteration:
                return
            except RuntimeError:  # a worker that has ended, perhaps by SIGBUS
                self._require_unchanged()
                raise
            self._look(batch, step)
            step += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        """How many batches have been handed out since the beginning of the run."""
        return {"next_step": self.next_step}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on after as many batches."""
        self.next_step = int(state["next_step"])


def _as_it_is(batch: T) -> T:
    return batch
