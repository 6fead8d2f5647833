"""The LightningDataModule that draws episode-safe slices of one or many tasks from episode stores."""

from __future__ import annotations

import os
from typing import Annotated, Any

import torch
from lightning.pytorch import LightningDataModule
from lightning.pytorch.utilities.rank_zero import rank_zero_info

from datamodules.batches_of_steps import training_batches, validation_batches
from datamodules.chosen_data import ChosenData
from datamodules.episodes import copies, warn_of_chunks
from datamodules.global_batch import GlobalBatch
from datamodules.loader import SliceLoader
from datamodules.sampler import Balance
from datamodules.second_stream import SecondStream
from datamodules.storages import Placement, Storage, storage_of
from datamodules.streams import Stream
from lit_pwm.errors import LitPWMError
from lit_pwm.options import Count, CountOrZero, Length, Positive, Share, WorkersOrNone, checked
from lit_pwm.options.objects import group_of
from lit_pwm.paths import absolute


class MultitaskDataModule(ChosenData, LightningDataModule):
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
        second: a second stream of slices, which come with a batch under `second`, for a world model that is trained
            while a policy learns; none if not given.
        task_weights: with `balance: tasks`, task name → how often it is drawn from relative to others, positive; 1 for
            tasks that are not named. Validation draws from all alike.
        prefetch: batches made ahead while a step is computed, by each of those processes, or by a thread of the main
            one; 0 makes each when it is asked for. Rows on the device need none.

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
        second: SecondStream | None = None,
        task_weights: dict[str, Positive] | None = None,
        prefetch: CountOrZero = 2,
    ) -> None:
        super().__init__()
        paths = [store] if isinstance(store, (str, os.PathLike)) else list(store)
        self.paths = [str(absolute(path)) for path in paths]  # they mean the same if the process goes elsewhere
        self.horizon, self.batch_size, self.balance, self.storage = horizon, batch_size, balance, storage
        self.chosen_tasks = None if tasks is None else list(tasks)
        self.batches_per_epoch, self.num_workers, self.seed = batches_per_epoch, num_workers, seed
        self.val_fraction, self.val_horizon, self.val_batches = val_fraction, val_horizon, val_batches
        self.task_weights = None if task_weights is None else dict(task_weights)
        self.second = None if second is None else group_of(SecondStream, second, "data.second")
        if self.storage == "device" and self.num_workers:
            raise LitPWMError(
                f"data.storage 'device' gathers batches where they are used, which data.num_workers "
                f"{self.num_workers} worker processes cannot. Set num_workers to 0."
            )
        self._prefetch = 0 if storage == "device" else prefetch
        self._storage: Storage | None = None
        self._only_starts = False

    # -- Lightning --------------------------------------------------------------------------------------------------
    def setup(self, stage: str | None = None) -> None:
        """Open the stores and make sure that they hold enough slices.

        Raises:
            LitPWMError: they do not, or a store cannot be used.
        """
        _, table = self._opened()
        self._only_starts = False  # until a model asks for that again
        for notice in copies(self._of_both_streams()[0]):
            rank_zero_info(notice)
        if self.storage == "memmap":
            warn_of_chunks(self._of_both_streams()[0])
        ranks = self._ranks()
        seed = int(os.environ.get("PL_GLOBAL_SEED", 0)) if self.seed is None else self.seed
        self._train_batches = training_batches(
            table,
            self._split.held,
            self.horizon,
            self.batch_size,
            self.balance,
            seed,
            ranks,
            self.paths,
            task_weights=self.task_weights,
        )
        if self.second is not None and (episodes := self._second_episodes) is not None:
            self._second_batches = training_batches(
                episodes.table, episodes.held, self.second.horizon, self.second.batch_size, self.balance, seed, ranks,
                episodes.paths, "data.second", self.second.seed_key, episodes.joined.places, self.second.task_weights,
            )  # fmt: skip
        if self.val_batches and self.val_horizon is not None:
            self._split.require_horizon(table)
        self._val_batches = validation_batches(
            table, self._split, self.val_batches, self.batch_size, self.balance, ranks
        )
        self._storage = None

    def _ranks(self) -> tuple[int, int]:
        """This rank's number, and how many there are."""
        return (0, 1) if (trainer := self.trainer) is None else (trainer.global_rank, trainer.world_size)

    def _device(self) -> torch.device:
        return self.trainer.strategy.root_device if self.trainer is not None else torch.device("cpu")

    def __getstate__(self) -> dict[str, Any]:
        # Rows in memory may be as large as it is; a process that is handed the module reads its own.
        return {**self.__dict__, "_storage": None}

    def _rows(self) -> Storage:
        """Where the rows live, read there when first needed."""
        if self._storage is None:
            stores, table, _ = self._of_both_streams()
            self._storage = storage_of(self.storage, stores, table, self._device())
        return self._storage

    def give_first_observations_only(self) -> None:
        """From now on training loaders read the row in which a slice starts: batches of slices of no transition.

        The slices are those of `horizon` that would be drawn anyway. The second stream's and validation's stay whole.
        """
        self._only_starts = True

    def train_dataloader(self) -> SliceLoader:
        """Batches of training slices; iterating again goes on with the next ones."""
        # Counts on when a run reloads its loaders or goes on from a checkpoint.
        trainer = self.trainer
        done = trainer.fit_loop.total_batch_idx + 1 if trainer is not None else 0
        overfitting = trainer is not None and bool(trainer.overfit_batches)  # ty: ignore[missing-attribute]
        every = 1 if self.second is None else self.second.every
        stream = Stream(
            *self._opened(), self._rows(), self._train_batches, 0 if self._only_starts else self.horizon, self._binding,
            self._second(), every, terminations=self.has_terminations,
        )  # fmt: skip
        return self._loader(stream, self.batches_per_epoch, done, restart=overfitting)

    def _second(self) -> Stream | None:
        if self.second is None or (second := self._second_episodes) is None:
            return None
        stores, table, _ = self._of_both_streams()
        return Stream(
            stores, table, self._rows(), self._second_batches, self.second.horizon, second.binding,
            terminations=self.has_terminations,
        )  # fmt: skip

    def val_dataloader(self) -> SliceLoader | list[SliceLoader]:
        """Batches of fixed, evenly spread slices of held-out episodes; an empty list where none is held out."""
        if self._val_batches is None:
            return []
        stream = Stream(
            *self._opened(), self._rows(), self._val_batches, self._split.horizon, self._binding,
            terminations=self.has_terminations,
        )  # fmt: skip
        return self._loader(stream, len(self._val_batches), 0, restart=True)

    def test_dataloader(self) -> SliceLoader | list[SliceLoader]:
        """The batches of validation."""
        return self.val_dataloader()

    # -- checkpoints ------------------------------------------------------------------------------------------------
    def _global_batch(self) -> GlobalBatch:
        return GlobalBatch.of(self._ranks()[1], self.batch_size, self.second.batch_size if self.second else None)

    def state_dict(self) -> dict[str, Any]:
        """The sizes of whole batches; loaders hold their positions themselves."""
        return self._global_batch().plain()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Make sure that a run that goes on with training draws the slices that come next.

        Raises:
            LitPWMError: it has another number of ranks and another whole batch.
        """
        if self.trainer is None or self.trainer.training:
            self._global_batch().require_going_on(state_dict)

    def on_exception(self, exception: BaseException) -> None:
        """Where a process that makes batches has ended, say so if a store has shrunk under it.

        Raises:
            LitPWMError: one has changed.
        """
        if isinstance(exception, RuntimeError) and self.num_workers:
            for store in self._of_both_streams()[0]:
                store.require_unchanged()

    def _loader(self, stream: Stream, length: int, first_step: int, restart: bool) -> SliceLoader:
        pin_memory = self._device().type == "cuda" and self.storage != "device"
        return stream.loader(length, first_step, restart, self.num_workers, pin_memory, self._prefetch)
