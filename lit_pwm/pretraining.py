"""Pre-training of a multi-task world model on offline slices, as a LightningModule."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Annotated, Any, cast

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from lit_pwm.atomic_update import AtomicUpdate
from lit_pwm.batch import Batch, DataSource
from lit_pwm.binding import bind, source_of
from lit_pwm.checkpoints.native import (
    DESCRIPTION_KEY,
    building,
    check_same_networks,
    describe_world_model,
    description_of,
    load_world_model,
)
from lit_pwm.errors import LitPWMError, did_you_mean
from lit_pwm.losses import WorldModelLoss, sigreg, world_model_loss
from lit_pwm.models.component import factory_from
from lit_pwm.models.dynamics import Dynamics, MLPDynamics
from lit_pwm.models.layers import LatentWidth
from lit_pwm.models.parity import Parity, match_parameters, parity_of
from lit_pwm.models.world_model import WorldModel
from lit_pwm.open_loop import OpenLoopError
from lit_pwm.optim import (
    apply_settings,
    check_each_parameter_once,
    compute_gradients,
    follow_,
    logs_now,
    planned_updates,
    settings_of,
    take_step,
    warmup_cosine,
    world_model_groups,
)
from lit_pwm.options import Beta, Count, CountOrZero, File, Fraction, Length, NonNegative, Positive, Rate, check_options
from lit_pwm.paths import absolute
from lit_pwm.precision import require_supported_precision, sums_dtype
from lit_pwm.tasks.registry import TASK_SETS, task_spec


class WorldModelPretraining(LightningModule):
    """Trains encoder, dynamics, reward head and task embeddings on slices of offline episodes.

    The loss is TD-MPC2's (`lit_pwm.losses.world_model_loss`), whose coefficients are the defaults. The networks are
    built when the run starts, from the dimensions of the data.

    Args:
        dynamics: the dynamics class and its options; dimensions come from the data.
        latent_dim: width of the latent, a multiple of 8.
        encoder_dim: width of the encoder's hidden layers.
        encoder_layers: number of the encoder's hidden layers.
        reward_dim: width of the reward head's two hidden layers.
        task_dim: width of the task embedding.
        task_set: build the model for all tasks of this set (for example mt30), with the set's widths, whatever subset
            the data holds; by default for the data's own tasks.
        initial_checkpoint: start from the world model in this checkpoint instead of fresh weights; it brings its own
            sizes and observation statistics.
        standardise_observations: scale each task's observations by its training episodes' mean and standard deviation,
            which are then part of the model.
        rho: discount of later steps in the loss.
        consistency_coef: weight of the dynamics' loss.
        reward_coef: weight of the reward's cross-entropy.
        target_encoder_rate: fraction by which the encoder of targets follows the trained one after each update; 1 is
            TD-MPC2's, whose targets are encoded by the trained encoder itself.
        sigreg_coef: weight of a term that keeps the encoder's outputs before SimNorm normally distributed, against
            collapse (`lit_pwm.losses.sigreg`, over 64 random directions).
        lr: learning rate of AdamW.
        encoder_lr_scale: the encoder's learning rate as a fraction of `lr`.
        betas: AdamW's betas.
        weight_decay: AdamW's weight decay.
        clip_norm: largest gradient norm.
        warmup_steps: updates of linear warm-up.
        final_lr_fraction: the cosine schedule ends at this fraction of the learning rate; 1 keeps it constant.
        open_loop_steps: numbers of open-loop steps after which held-out errors are reported.
        parameter_reference: dynamics whose number of parameters these are to have: the width that comes nearest is
            chosen when the networks are built, and is saved with them. A model that starts from `initial_checkpoint`
            keeps its own width.
        parameter_tolerance: largest relative difference from the reference's number of parameters.
    """

    world_model: WorldModel
    open_loop: OpenLoopError

    def __init__(
        self,
        dynamics: Callable[[int, int, int], Dynamics] = MLPDynamics,
        latent_dim: LatentWidth = 512,
        encoder_dim: Count = 256,
        encoder_layers: Count = 1,
        reward_dim: Count = 512,
        task_dim: CountOrZero = 64,
        task_set: str | None = None,
        initial_checkpoint: File | None = None,
        standardise_observations: bool = True,
        rho: Fraction = 0.99,
        consistency_coef: NonNegative = 20.0,
        reward_coef: NonNegative = 0.1,
        target_encoder_rate: Rate = 1.0,
        sigreg_coef: NonNegative = 0.0,
        lr: NonNegative = 3e-4,
        encoder_lr_scale: NonNegative = 0.3,
        betas: tuple[Beta, Beta] = (0.9, 0.999),
        weight_decay: NonNegative = 0.0,
        clip_norm: Positive = 20.0,
        warmup_steps: CountOrZero = 0,
        final_lr_fraction: Fraction = 1.0,
        open_loop_steps: Annotated[tuple[Count, ...], Length(1)] = (1, 4, 16),
        parameter_reference: Callable[[int, int, int], Dynamics] | None = None,
        parameter_tolerance: NonNegative = 0.02,
    ) -> None:
        super().__init__()
        check_options(WorldModelPretraining, locals())
        if task_set is not None and task_set not in TASK_SETS:
            raise LitPWMError(f"There is no task set {task_set!r}. {did_you_mean(task_set, TASK_SETS)}")
        self.automatic_optimization = False
        parts = {"dynamics": dynamics, "parameter_reference": parameter_reference}
        self.save_hyperparameters(ignore=[name for name, part in parts.items() if not isinstance(part, Mapping)])
        self._make_dynamics = factory_from(dynamics, Dynamics)
        self._reference = None if parameter_reference is None else factory_from(parameter_reference, Dynamics)
        self.parameter_tolerance = parameter_tolerance
        self.widths = {
            "latent_dim": latent_dim,
            "encoder_dim": encoder_dim,
            "encoder_layers": encoder_layers,
            "reward_dim": reward_dim,
            "task_dim": task_dim,
        }
        self.task_set = task_set
        self.initial_checkpoint = str(absolute(initial_checkpoint)) if initial_checkpoint else None
        self.standardise_observations = standardise_observations
        self.loss_weights = rho, consistency_coef, reward_coef
        self.target_encoder_rate, self.sigreg_coef = target_encoder_rate, sigreg_coef
        self.lr, self.encoder_lr_scale, self.betas, self.weight_decay = lr, encoder_lr_scale, tuple(betas), weight_decay
        self.clip_norm, self.warmup_steps, self.final_lr_fraction = clip_norm, warmup_steps, final_lr_fraction
        self.open_loop_steps = tuple(open_loop_steps)

    # -- building ---------------------------------------------------------------------------------------------------
    @property
    def is_built(self) -> bool:
        """Whether the networks exist yet."""
        return "world_model" in self._modules

    def configure_model(self) -> None:
        """Build the networks from the data's dimensions if there are none yet, and bind the data to them.

        Lightning calls this in every run, before the optimizers exist and before a checkpoint is restored.
        """
        if self._trainer is None:
            return
        require_supported_precision(self)
        source, fresh = source_of(self), not self.is_built
        if fresh and self.initial_checkpoint:
            self._build(self._initial_world_model(self.initial_checkpoint))
        elif fresh:
            tasks = self._tasks(source)
            with torch.device("cpu"):  # a seed gives the same weights wherever they are trained
                self._build(WorldModel(tasks, self._matched_dynamics, **self.widths))
        # Before the statistics, because this is what refuses tasks that the model does not know.
        bind(source, self.world_model)
        if fresh and self.standardise_observations and not self.initial_checkpoint:
            left = self.world_model.set_observation_statistics(source.observation_statistics())
            for name, entries in left.items():
                rank_zero_info(
                    f"Observation entries {', '.join(map(str, entries))} of {name!r} vary by no more than rounding and "
                    f"are not scaled."
                )

    def _initial_world_model(self, path: str) -> WorldModel:
        world_model = load_world_model(path).train()
        if self.task_set is not None and set(world_model.task_names) != set(TASK_SETS[self.task_set]):
            raise LitPWMError(
                f"model.task_set is {self.task_set!r}, but the world model in model.initial_checkpoint {path!r}, which "
                f"brings its own tasks, knows {', '.join(world_model.task_names)}. Leave model.task_set out."
            )
        return world_model

    def _matched_dynamics(self, *dimensions: int) -> Dynamics:
        make = self._make_dynamics
        if self._reference is not None:
            make = match_parameters(make, self._reference, dimensions, self.parameter_tolerance)
        return make(*dimensions)

    def parity(self) -> Parity | None:
        """How the dynamics' number of parameters compares with the reference's; None without a reference."""
        if self._reference is None:
            return None
        dynamics = self.world_model.dynamics
        return parity_of(dynamics, self._reference, (dynamics.latent_dim, dynamics.action_dim, dynamics.task_dim))

    def _tasks(self, source: DataSource) -> dict[str, tuple[int, int]]:
        if self.task_set is None:
            return source.tasks
        specs = [task_spec(name) for name in TASK_SETS[self.task_set]]
        return {spec.name: (spec.obs_dim, spec.action_dim) for spec in specs}

    def _build(self, world_model: WorldModel) -> None:
        self.world_model = world_model
        if self.target_encoder_rate != 1:
            parts = {"encoder": world_model.encoder, "task_embedding": world_model.task_embedding}
            self.target_encoder = nn.ModuleDict({name: copy.deepcopy(part) for name, part in parts.items()})
        self.open_loop = OpenLoopError(
            world_model.task_names, world_model.latent_dim, self.open_loop_steps, sums_dtype(self)
        )

    def _build_described(self, description: Mapping[str, Any], path: str) -> None:
        with building(path):
            self._build(WorldModel.from_description(description))

    def configure_optimizers(self) -> Any:
        """AdamW over the world model's named groups, with warm-up and cosine decay."""
        groups = world_model_groups(self.world_model, self.lr, self.encoder_lr_scale)
        betas = (self.betas[0], self.betas[1])
        optimizer = torch.optim.AdamW(groups, lr=self.lr, betas=betas, weight_decay=self.weight_decay, fused=True)
        check_each_parameter_once(self.world_model, optimizer)
        factor = warmup_cosine(planned_updates(self), self.warmup_steps, self.final_lr_fraction)
        scheduler = LambdaLR(optimizer, factor)
        self._settings = settings_of([optimizer])
        return [optimizer], [scheduler]

    def on_train_start(self) -> None:
        """Freeze the encoder of targets; when resuming, let this run's learning rates win over the checkpoint's."""
        if (parity := self.parity()) is not None:
            parity.require(self.parameter_tolerance)
            rank_zero_info(f"dynamics {parity}")
        if self.target_encoder_rate != 1:
            self.target_encoder.requires_grad_(False)
        self._atomic = AtomicUpdate(self)
        apply_settings(self._settings, self.trainer.optimizers, [cast("LambdaLR", self.lr_schedulers())])

    # -- training ---------------------------------------------------------------------------------------------------
    def training_step(self, batch: Batch, batch_idx: int) -> None:
        """One update of the whole world model."""
        optimizer = cast("LightningOptimizer", self.optimizers())
        with self._atomic as update:
            loss = self.update_loss(batch, *self.target_logits(batch))
            total = loss.total + self._regularisation(batch)
            norm = compute_gradients(self, optimizer, total, self.clip_norm)
            update.watch("world-model", total, norm)
        take_step(self, optimizer)
        self._move_target_encoder()
        cast("LambdaLR", self.lr_schedulers()).step()
        if logs_now(self):
            size = batch["task"].numel()
            self.log("train/loss", loss.total.detach(), prog_bar=True, batch_size=size, sync_dist=True)
            parts = {
                "train/consistency": loss.consistency,
                "train/reward_cross_entropy": loss.reward,
                "train/latent_variance": loss.latent_variance,
                "train/gradient_norm": norm,
            }
            self.log_dict({key: value.detach() for key, value in parts.items()}, batch_size=size, sync_dist=True)

    def update_loss(self, batch: Batch, *target_logits: Tensor) -> WorldModelLoss:
        """What an update descends on but for regularisation; `target_logits` as in `world_model_loss`, if any."""
        return world_model_loss(self.world_model, batch, *self.loss_weights, *target_logits)

    @torch.no_grad()
    def target_logits(self, batch: Batch) -> tuple[Tensor, ...]:
        """What the slow encoder says of the next observations; nothing where the trained one is to be asked."""
        if self.target_encoder_rate == 1:
            return ()
        obs, task = batch["obs"][1:], batch["task"].expand(batch["obs"].shape[:2])[1:]
        embedding = self.target_encoder["task_embedding"](task)
        return (
            self.target_encoder["encoder"](torch.cat([self.world_model.standardise(obs, task), embedding], dim=-1)),
        )

    def _regularisation(self, batch: Batch) -> Tensor:
        if not self.sigreg_coef:
            return torch.zeros((), device=self.device)
        logits = self.world_model.encode_logits(batch["obs"][0], batch["task"])
        directions = nn.functional.normalize(torch.randn(logits.shape[-1], 64, device=self.device), dim=0)
        return self.sigreg_coef * sigreg(logits, directions)

    def _move_target_encoder(self) -> None:
        if self.target_encoder_rate != 1:
            for name, part in self.target_encoder.items():
                follow_(part, getattr(self.world_model, name), self.target_encoder_rate)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Held-out loss and open-loop errors."""
        loss = world_model_loss(self.world_model, batch, *self.loss_weights)
        self.log("val/loss", loss.total, batch_size=batch["task"].numel(), sync_dist=True)
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

    # -- checkpoints ------------------------------------------------------------------------------------------------
    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Describe the networks beside their weights."""
        checkpoint[DESCRIPTION_KEY] = describe_world_model(self.world_model)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Build the networks that the checkpoint holds, in its order of tasks, or refuse one of other networks."""
        path = "being loaded" if self._trainer is None else str(self.trainer.ckpt_path)
        description = description_of(checkpoint, path)
        theirs = description["world_model"]
        origin = checkpoint.get("hyper_parameters", {}).get("initial_checkpoint")
        if not self.is_built or (origin and not self.initial_checkpoint):  # whose sizes this run's options never named
            self._build_described(theirs, path)
        if origin and not self.initial_checkpoint:
            self.initial_checkpoint = self.hparams["initial_checkpoint"] = origin  # for who resumes from this run
        ours = describe_world_model(self.world_model)
        if self.task_set is None and not self.initial_checkpoint:  # tasks and widths were those of this run's data
            ours["world_model"] |= {key: theirs[key] for key in ("tasks", "obs_dim", "action_dim")}
        check_same_networks(ours, description, path)
        if not self.world_model.numbers_tasks_like(theirs):
            self._build_described(theirs, path)
        if self._trainer is not None:
            bind(source_of(self), self.world_model)
