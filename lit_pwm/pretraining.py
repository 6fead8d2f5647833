"""Pre-training of a multi-task world model on offline slices, as a LightningModule."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Annotated, Any, cast

import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR

from lit_pwm.batch import Batch
from lit_pwm.errors import LitPWMError, did_you_mean
from lit_pwm.losses import WorldModelObjective, objective_from
from lit_pwm.models.noise import seed_noise
from lit_pwm.models.world_model_options import WorldModelOptions
from lit_pwm.optim import (
    apply_settings,
    check_each_parameter_once,
    logs_now,
    planned_updates,
    settings_of,
    warmup_cosine,
)
from lit_pwm.options import Count, File, Length, check_options
from lit_pwm.options.objects import group_of
from lit_pwm.options.optimizers import WorldModelOptimizer
from lit_pwm.options.renamed import AcceptsOldSpellings
from lit_pwm.paths import located
from lit_pwm.runtime.casts import cached_casts
from lit_pwm.tasks.registry import TASK_SETS
from lit_pwm.updates.atomic_update import AtomicUpdate
from lit_pwm.updates.binding import hold_absent_tasks, notice_unused_stream, source_of
from lit_pwm.updates.draws import Draws, stream_seed
from lit_pwm.updates.ends import learn_ends
from lit_pwm.updates.from_checkpoint import require_file_of_tasks
from lit_pwm.updates.new_tasks import check_new_tasks
from lit_pwm.updates.optimized_part import OptimizedPart, Rates, count_update, rates_of
from lit_pwm.updates.pretraining_networks import PretrainingNetworks

_METRICS = {"reward": "reward_cross_entropy"}
"""Names of parts of the loss that metrics call otherwise."""


class WorldModelPretraining(PretrainingNetworks, metaclass=AcceptsOldSpellings):
    """Trains encoder, dynamics, heads and task embeddings on slices of offline episodes.

    The loss is TD-MPC2's (`lit_pwm.losses.WorldModelObjective`), whose coefficients are the defaults. The networks are
    built when the run starts, from the dimensions of the data; of a run that is resumed, from its checkpoint.

    Args:
        world_model: what the world model is made of, and its widths.
        objective: the objective's class and options, or an objective.
        optimizer: settings of AdamW and its schedule.
        task_set: build the model for all tasks of this set (for example mt30), with the set's widths, whatever subset
            the data holds; by default for the data's own tasks.
        initial_checkpoint: start from the world model in this checkpoint instead of fresh weights; it brings its own
            parts, sizes and observation statistics. A file of any format in docs/checkpoints.md.
        standardise_observations: scale each task's observations by its training episodes' mean and standard deviation,
            which are then part of the model.
        open_loop_steps: numbers of open-loop steps after which held-out errors are reported.
        checkpoint_tasks: names of the tasks in `initial_checkpoint`, in the order of its rows, where the file does not
            say them; or a task set's name.
        new_tasks: tasks of the data that the initial checkpoint's world model has never seen, each with the known task
            that its embedding starts as, or `mean` for the mean over all: `{my-robot: cheetah-run}`. Widths come from
            the data, and so do statistics where the model standardises.
    """

    def __init__(
        self,
        world_model: WorldModelOptions = WorldModelOptions(),
        objective: Callable[[], WorldModelObjective] | WorldModelObjective = WorldModelObjective,
        optimizer: WorldModelOptimizer = WorldModelOptimizer(),
        task_set: str | None = None,
        initial_checkpoint: File | None = None,
        standardise_observations: bool = True,
        open_loop_steps: Annotated[tuple[Count, ...], Length(1)] = (1, 4, 16),
        checkpoint_tasks: list[str] | None = None,
        new_tasks: dict[str, str] | None = None,
    ) -> None:
        super().__init__()
        check_options(WorldModelPretraining, locals())
        if task_set is not None and task_set not in TASK_SETS:
            raise LitPWMError(f"There is no task set {task_set!r}. {did_you_mean(task_set, TASK_SETS)}")
        self.automatic_optimization = False
        self.world_model_options = group_of(WorldModelOptions, world_model, "world_model")
        self.objective = objective_from(objective)
        self.optimizer_settings = group_of(WorldModelOptimizer, optimizer, "optimizer")
        self.initial_checkpoint = located(initial_checkpoint) if initial_checkpoint else None
        self.save_hyperparameters(ignore=["world_model", "objective", "optimizer"])
        self.keep_plain(
            world_model=self.world_model_options.plain(),
            objective=self.objective.description(),
            optimizer=asdict(self.optimizer_settings),
            initial_checkpoint=self.initial_checkpoint,
        )
        self.task_set, self.standardise_observations = task_set, standardise_observations
        require_file_of_tasks(checkpoint_tasks, initial_checkpoint=initial_checkpoint)
        self.open_loop_steps, self.checkpoint_tasks = tuple(open_loop_steps), checkpoint_tasks
        self.new_tasks = check_new_tasks(new_tasks, self.initial_checkpoint, "initial_checkpoint")

    def configure_optimizers(self) -> Any:
        """AdamW over the world model's named groups, with warm-up and cosine decay."""
        settings = self.optimizer_settings
        groups = self.objective.parameter_groups(self.world_model, settings)
        betas = (settings.betas[0], settings.betas[1])
        optimizer = torch.optim.AdamW(
            groups, lr=settings.lr, betas=betas, weight_decay=settings.weight_decay, fused=True
        )
        check_each_parameter_once(self.world_model, optimizer)
        factor = warmup_cosine(planned_updates(self), settings.warmup_steps, settings.final_lr_fraction)
        scheduler = LambdaLR(optimizer, factor)
        self._settings = settings_of([optimizer])
        return [optimizer], [scheduler]

    def on_train_start(self) -> None:
        """When resuming, let this run's learning rates win; what absent tasks have in the model is left alone.

        Where the model has a continuation head, it comes to know in which tasks the data's episodes end.
        """
        if (parity := self.parity()) is not None:
            parity.require(self.world_model_options.parameter_tolerance)
            rank_zero_info(f"dynamics {parity}")
        apply_settings(self._settings, self.trainer.optimizers, [cast("LambdaLR", self.lr_schedulers())])
        hold_absent_tasks(self.world_model, source_of(self).tasks)
        learn_ends(source_of(self), self.world_model, trained_on="first")
        notice_unused_stream(source_of(self), "pre-training learns from the first. Leave data.second out.")
        self.prepare_updates(self.trainer.optimizers[0])

    def prepare_updates(self, optimizer: torch.optim.Optimizer) -> None:
        """Find once what `update` would look for each time; `optimizer` is that of `configure_optimizers`."""
        self.optimized = OptimizedPart(self, "world_model", optimizer, self.optimizer_settings.clip_norm, leads=True)
        self.optimized.create_states()
        self._atomic, self._seed = AtomicUpdate(self), int(self.noise_seed)

    # -- training ---------------------------------------------------------------------------------------------------
    def training_step(self, batch: Batch, batch_idx: int) -> None:
        """Draw for one update, make it, and count it if it was made."""
        seed = stream_seed(self._seed, f"global generators, rank {self.global_rank}", self.global_step)
        with self._atomic.streams.seeded(seed, self.device, watched=self.trainer.world_size > 1):
            parts = self.update(batch, self.update_noise(batch), rates_of([self.optimized]))
        self._atomic.require()
        count_update(self)
        cast("LambdaLR", self.lr_schedulers()).step()
        if logs_now(self):
            size = batch["task"].numel()
            self.log("train/loss", parts.pop("total"), prog_bar=True, batch_size=size, sync_dist=True)
            named = {f"train/{_METRICS.get(name, name)}": part for name, part in parts.items()}
            self.log_dict(named, batch_size=size, sync_dist=True)

    def update(self, batch: Batch, noise: Mapping[str, Tensor], rates: Rates | None = None) -> dict[str, Tensor]:
        """One update of the whole world model.

        It reads no number on the host, and moves nothing if the loss or its gradient is not finite on any rank
        (`lit_pwm.updates.atomic_update`, whose `require` says so).

        Args:
            batch: slices.
            noise: standard normal numbers by name, as `WorldModelObjective.noise_shapes` says, [B, *shape] each.
            rates: learning rates by the name of the group; as the schedule left them if not given.

        Returns:
            What is logged: the loss (`total`), its parts and the gradient's norm; scalars of this rank, no gradient.
        """
        self.optimized.set_rates(rates)
        with self._atomic as update:
            parts = self.update_loss(batch, noise)
            norm = self.optimized.compute_gradients(parts["total"])
            update.watch("world-model", parts["total"], norm)
        update.step(self.optimized)
        for slow, fast, rate in self.objective.followers(self.world_model):
            update.follow(slow, fast, rate)
        return {name: part.detach() for name, part in parts.items()} | {"gradient_norm": norm}

    def update_loss(self, batch: Batch, noise: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What an update descends on, and its parts (`WorldModelObjective`)."""
        with cached_casts(self.device):
            return self.objective(self.world_model, batch, noise)

    def update_noise(self, batch: Batch) -> dict[str, Tensor]:
        """The noise of the next update, which draws the same again: `update` says what it is."""
        shapes, size = self.objective.noise_shapes(self.world_model, len(batch["action"])), len(batch["task"])
        draws = Draws(
            self._seed, self.global_step, self.global_rank, self.trainer.world_size, self.device,
            self.world_model.obs_mean.dtype,
        )  # fmt: skip
        return {name: draws.normal(name, size, shape) for name, shape in shapes.items()}

    def on_validation_epoch_start(self) -> None:
        """World models that sample draw the same in each validation, so that losses can be compared."""
        seed_noise(self.world_model, self.global_rank)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Held-out loss and open-loop errors."""
        loss = self.objective(self.world_model, batch)["total"]
        self.log("val/loss", loss, batch_size=batch["task"].numel(), sync_dist=True)
        self.open_loop.update(self.world_model, batch)

    def on_validation_epoch_end(self) -> None:
        """Log the open-loop errors, which the metric reduces over ranks."""
        scores = {f"val/{key}": value for key, value in self.open_loop.compute().items()}
        self.log_dict(scores, sync_dist=True)  # equal on all ranks by now, which Lightning cannot know
        self.open_loop.reset()

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """As validation."""
        self.open_loop.update(self.world_model, batch)

    def on_test_epoch_end(self) -> None:
        """Log the open-loop errors of the test pass."""
        scores = {f"test/{key}": value for key, value in self.open_loop.compute().items()}
        self.log_dict(scores, sync_dist=True)  # equal on all ranks by now, which Lightning cannot know
        self.open_loop.reset()
