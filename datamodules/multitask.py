"""The LightningDataModule that draws episode-safe slices of one or many tasks from episode stores."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from typing import Annotated, Literal

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from lightning.pytorch.utilities.rank_zero import rank_zero_info

from datamodules.episodes import EpisodeTable, choose, copies, open_all
from datamodules.fingerprint import fingerprint
from datamodules.first_rank import from_first_rank
from datamodules.guarding import Guard
from datamodules.loader import DrawnBatches, FixedBatches, SliceDataset, SliceLoader
from datamodules.numbering import Binding
from datamodules.observation_statistics import observation_statistics
from datamodules.sampler import Balance, SliceSampler
from datamodules.splitting import Split, require_slices, split
from datamodules.storages import DeviceStorage, FileStorage, MemoryStorage, Storage, widest
from datamodules.store import EpisodeStore
from lit_pwm.errors import LitPWMError
from lit_pwm.options import Count, CountOrZero, Length, Share, WorkersOrNone, checked
from lit_pwm.paths import absolute

Placement = Literal["memmap", "ram", "device"]


class MultitaskDataModule(LightningDataModule):
    """Draws slices of offline episodes of one or many tasks.

    Batches are dictionaries as `lit_pwm.batch.Batch` says, time-major. The whole batch of a step, that of all ranks
    together, depends on the seed and the step alone. Works without a Trainer too: call `setup()`, then
    `train_dataloader()`.

    Args:
        store: path of an episode store, or a list of paths that are used together; tasks are the same if their names
            are.
        horizon: transitions H of a training slice, which has H + 1 observations.
        batch_size: slices of a batch of each rank.
        tasks: names of the tasks to use; all that have episodes if not given.
        balance: `transitions` draws uniformly from all slices, `tasks` draws a task first and then one of its slices.
        batches_per_epoch: training batches of an epoch.
        storage: where rows live: `memmap` leaves them in the file (for stores of any size), `ram` copies those of the
            chosen tasks into each process, `device` onto the accelerator.
        val_fraction: share of each task's episodes held out for validation, the same for every seed, of those that are
            long enough for a validation slice; 0 for none.
        val_horizon: transitions of a validation slice; the larger of `horizon` and 16, or less if a task's episodes are
            all shorter, if not given.
        val_batches: validation batches, fewer if there are not as many different slices.
        seed: of the drawing of slices; the run's seed (`seed_everything`) if not given, else 0.
        num_workers: processes that make batches; 0, which is fastest for stores on a local disk, makes them in the
            main one.

    Raises:
        LitPWMError: an argument is not one of those above.
    """

    @checked
    def __init__(
        self,
        store: str | Annotated[list[str], Length(1)],
        horizon: Count = 16,
        batch_size: Count = 256,
        tasks: list[str] | None = None,
        balance: Balance = "transitions",
        batches_per_epoch: Count = 1000,
        storage: Placement = "memmap",
        val_fraction: Share = 0.05,
        val_horizon: Count | None = None,
        val_batches: CountOrZero = 8,
        seed: CountOrZero | None = None,
        num_workers: WorkersOrNone = 0,
    ) -> None:
        super().__init__()
        paths = [store] if isinstance(store, (str, os.PathLike)) else list(store)
        self.paths = [str(absolute(path)) for path in paths]  # they mean the same if the process goes elsewhere
        self.horizon, self.batch_size, self.balance, self.storage = horizon, batch_size, balance, storage
        self.chosen_tasks = None if tasks is None else list(tasks)
        self.batches_per_epoch, self.num_workers, self.seed = batches_per_epoch, num_workers, seed
        self.val_fraction, self.val_horizon, self.val_batches = val_fraction, val_horizon, val_batches
        if self.storage == "device" and self.num_workers:
            raise LitPWMError(
                f"data.storage 'device' gathers batches where they are used, which data.num_workers "
                f"{self.num_workers} worker processes cannot. Set num_workers to 0."
            )
        self._stores: list[EpisodeStore] | None = None
        self._statistics: dict[str, tuple[list[float], list[float]]] | None = None
        self._storage: Storage | None = None

    # -- what the data holds ----------------------------------------------------------------------------------------
    @property
    def table(self) -> EpisodeTable:
        """The chosen episodes; reads the stores' tables of episodes when first asked for."""
        return self._opened()[1]

    def _opened(self) -> tuple[list[EpisodeStore], EpisodeTable]:
        if self._stores is None:
            stores = open_all(self.paths)
            self._table = choose(stores, self.chosen_tasks)
            self._split = split(self._table, self.val_fraction, self.horizon, self.val_horizon)
            names = list(self._table.tasks)
            self._binding = Binding(np.arange(len(names)), *widest(stores))
            self._stores = stores
        return self._stores, self._table

    @property
    def tasks(self) -> dict[str, tuple[int, int]]:
        """Chosen tasks in the data's order: name → (obs_dim, action_dim), unpadded."""
        return self.table.tasks

    @property
    def has_terminations(self) -> bool:
        """Whether any chosen episode ended by termination."""
        stores, table = self._opened()
        return any(
            bool(store.terminated()[table.number[table.store == index]].any()) for index, store in enumerate(stores)
        )

    @property
    def held_out(self) -> np.ndarray:
        """Which of the chosen episodes are held out for validation, bool [E]."""
        self._opened()
        return self._split.held

    @property
    def fingerprint(self) -> str | None:
        """What tells this data from other data: of the stores' contents and the tasks chosen, wherever the files lie.

        None where a store has no checksums (version 1).
        """
        stores, table = self._opened()
        return fingerprint(stores, list(table.tasks))

    def observation_statistics(self) -> dict[str, tuple[list[float], list[float]]]:
        """Mean and standard deviation of each observation entry over the training episodes, for each chosen task.

        Made of what the stores hold of each episode, without reading rows. A store of version 1 holds nothing of the
        kind: its rows are read when this is first asked, on several ranks by the first alone, for which all must ask.
        """
        if self._statistics is None:
            stores, table = self._opened()
            training = np.flatnonzero(~self._split.held)
            scans = any(store.version == 1 for store in stores)
            find = partial(observation_statistics, stores, table, training)
            self._statistics = from_first_rank(find, self.trainer) if scans else find()
        return self._statistics

    # -- what a model makes of it -----------------------------------------------------------------------------------
    def bind_tasks(self, task_names: Sequence[str], obs_dim: int, action_dim: int) -> None:
        """From now on number tasks as `task_names` does, and pad or cut rows to these widths.

        Loaders that exist already follow, from their next batch on, or with worker processes from their next iteration.

        Raises:
            LitPWMError: a chosen task is not among `task_names`, or is wider than the widths.
        """
        self._opened()
        self._binding.bind(self.tasks, task_names, obs_dim, action_dim)

    # -- Lightning --------------------------------------------------------------------------------------------------
    def setup(self, stage: str | None = None) -> None:
        """Open the stores and make sure that they hold enough slices.

        Raises:
            LitPWMError: they do not, or a store cannot be used.
        """
        stores, table = self._opened()
        for notice in copies(stores):
            rank_zero_info(notice)
        rank, world_size = self._rank_and_world_size()
        # An episode that is not used counts as one without slices, so that windows name episodes of the whole table.
        training = ~self._split.held
        lengths = np.where(training, table.length, 0)
        require_slices(table, lengths, self.horizon, self.paths)
        seed = int(os.environ.get("PL_GLOBAL_SEED", 0)) if self.seed is None else self.seed
        sampler = SliceSampler(lengths, self.horizon, table.task, self.balance, seed)
        whole = self.batch_size * world_size
        if whole > sampler.num_windows:
            ranks = f" on each of {world_size} ranks" if world_size > 1 else ""
            raise LitPWMError(
                f"data.batch_size is {self.batch_size}{ranks}, but {', '.join(self.paths)} holds only "
                f"{sampler.num_windows} training slices of horizon {self.horizon}. Use a batch size of at most "
                f"{sampler.num_windows // world_size}, a shorter horizon, or more data."
            )
        self._train_batches = DrawnBatches(sampler, whole, rank, world_size)
        self._val_batches = self._make_validation(table, self._split, rank, world_size, whole)
        short = int(((lengths < self.horizon) & training).sum())
        if short:
            rank_zero_info(
                f"{short} of {int(training.sum())} training episodes are shorter than the horizon of "
                f"{self.horizon} and are not used."
            )
        self._storage = None

    def _make_validation(
        self, table: EpisodeTable, found: Split, rank: int, world_size: int, whole: int
    ) -> FixedBatches | None:
        if not self.val_batches:
            return None
        if self.val_horizon is not None:
            found.require_horizon(table)
        for notice in found.notices:
            rank_zero_info(notice)
        if not found.held.any():
            return None
        sampler = SliceSampler(np.where(found.held, table.length, 0), found.horizon, table.task, self.balance)
        batches = FixedBatches(sampler.spread(self.val_batches * whole), whole, rank, world_size)
        return batches if len(batches) else None

    def _rank_and_world_size(self) -> tuple[int, int]:
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer is not None else (0, 1)

    def _device(self) -> torch.device:
        return self.trainer.strategy.root_device if self.trainer is not None else torch.device("cpu")

    def _rows(self) -> Storage:
        """Where the rows live, read there when first needed."""
        if self._storage is None:
            stores, table = self._opened()
            if self.storage == "device":
                self._storage = DeviceStorage(stores, table, self._device())
            else:
                self._storage = (MemoryStorage if self.storage == "ram" else FileStorage)(stores, table)
        return self._storage

    def train_dataloader(self) -> SliceLoader:
        """Batches of training slices; iterating again goes on with the next ones."""
        # Counts on when a run reloads its loaders or goes on from a checkpoint.
        trainer = self.trainer
        done = trainer.fit_loop.total_batch_idx + 1 if trainer is not None else 0
        overfitting = trainer is not None and bool(trainer.overfit_batches)  # ty: ignore[missing-attribute]
        return self._loader(self._train_batches, self.horizon, self.batches_per_epoch, done, restart=overfitting)

    def val_dataloader(self) -> SliceLoader | list[SliceLoader]:
        """Batches of fixed, evenly spread slices of held-out episodes; an empty list where none is held out."""
        if self._val_batches is None:
            return []
        return self._loader(self._val_batches, self._split.horizon, len(self._val_batches), 0, restart=True)

    def test_dataloader(self) -> SliceLoader | list[SliceLoader]:
        """The batches of validation."""
        return self.val_dataloader()

    def on_exception(self, exception: BaseException) -> None:
        """Where a process that makes batches has ended, say so if a store has shrunk under it.

        Raises:
            LitPWMError: one has changed.
        """
        if isinstance(exception, RuntimeError) and self.num_workers:
            for store in self._stores or ():
                store.require_unchanged()

    def _loader(
        self, batches: DrawnBatches | FixedBatches, horizon: int, length: int, first_step: int, restart: bool
    ) -> SliceLoader:
        stores, table = self._opened()
        dataset = SliceDataset(self._rows(), table.task, batches, horizon, self._binding, length)
        # Rows in memory were all looked at when they were read.
        guard = Guard(stores, table, batches, lambda: self._binding.task_ids) if self.storage == "memmap" else None
        pin_memory = self._device().type == "cuda" and self.storage != "device"
        return SliceLoader(dataset, first_step, restart, self.num_workers, pin_memory, guard)
