"""Policy learning by first-order gradients through a world model (PWM, arXiv 2407.02466), as a LightningModule."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any, cast

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR

from lit_pwm.atomic_update import AtomicUpdate
from lit_pwm.batch import Batch, DataSource
from lit_pwm.binding import bind, source_of
from lit_pwm.checkpoints.native import (
    DESCRIPTION_KEY,
    building,
    check_same_networks,
    describe_policy,
    description_of,
    load_actor_and_critic,
    load_world_model,
)
from lit_pwm.errors import LitPWMError
from lit_pwm.imagination import Imagined, RewardSpace, discounted_return, imagine, td_lambda
from lit_pwm.models.actors import Actor, MLPActor
from lit_pwm.models.component import factory_from
from lit_pwm.models.critics import CriticEnsemble
from lit_pwm.models.parity import Parity, match_parameters, parity_of
from lit_pwm.models.policy import Policy
from lit_pwm.models.running_stats import RunningStats
from lit_pwm.models.world_model import WorldModel
from lit_pwm.optim import (
    apply_settings,
    check_each_parameter_once,
    compute_gradients,
    follow_,
    linear_decay,
    logs_now,
    planned_updates,
    settings_of,
    take_step,
)
from lit_pwm.options import Beta, Count, File, Fraction, NonNegative, Positive, Rate, check_options
from lit_pwm.paths import absolute
from lit_pwm.precision import require_supported_precision, sums_dtype


class PolicyLearning(LightningModule):
    """Trains an actor and an ensemble of critics on rollouts imagined by a frozen world model.

    Each update starts from the first observations of dataset slices, imagines H steps, moves the actor along the
    gradient of its normalised return through the world model, and fits the critics to TD(λ) targets. One policy serves
    all tasks of the data; let actor and critic look at the task (`task_dim`) when there are several.

    Args:
        world_model_checkpoint: a checkpoint that holds a world model, of pre-training or of policy learning.
        initial_policy_checkpoint: start from the actor and critics of this policy instead of fresh weights, for
            example after the world model was trained further; they must be of the same kinds and sizes.
        actor: the actor class and its options; dimensions come from the world model.
        critic: the critics' class and options.
        horizon: imagined steps H.
        gamma: discount.
        lam: λ of the critics' targets.
        reward_space: train on rewards in symlog units (as PWM) or in environment units.
        reward_scale: factor on rewards, which sets the scale of the critics' values.
        detach_actor_input: cut the gradient at the actor's input (as PWM).
        actor_lr: learning rate of the actor at the start.
        critic_lr: learning rate of the critics at the start.
        final_lr: both rates fall linearly to this one over the run; at most as large as they are.
        betas: Adam's betas.
        actor_clip_norm: largest norm of the actor's gradient.
        critic_clip_norm: largest norm of the critics' gradient.
        critic_passes: passes over the imagined states in each update.
        critic_minibatches: minibatches of each pass.
        target_rate: fraction by which the slow critics, which provide the values of targets and of the last state, move
            towards the trained ones after each update; 1 is PWM's, which has no slow critics.
        actor_average_rate: fraction by which the averaged actor moves towards the trained one after each update. The
            averaged one is the policy: it is what is evaluated, saved for use and continued from. A policy trained by
            gradients through a model swings between updates, and its average does not. 1 is PWM's, without average.
        actor_reference: an actor whose number of parameters this one is to have: the width that comes nearest is chosen
            when the networks are built, and is saved with them.
        parameter_tolerance: largest relative difference from the reference's number of parameters.
    """

    world_model: WorldModel
    actor: Actor
    averaged_actor: Actor
    critic: CriticEnsemble
    target_critic: CriticEnsemble
    noise_seed: Tensor

    def __init__(
        self,
        world_model_checkpoint: File | None = None,
        initial_policy_checkpoint: File | None = None,
        actor: Callable[[int, int, int], Actor] = MLPActor,
        critic: Callable[[int, int], CriticEnsemble] = CriticEnsemble,
        horizon: Count = 16,
        gamma: Fraction = 0.99,
        lam: Fraction = 0.95,
        reward_space: RewardSpace = "symlog",
        reward_scale: Positive = 1.0,
        detach_actor_input: bool = True,
        actor_lr: Positive = 5e-4,
        critic_lr: Positive = 5e-4,
        final_lr: NonNegative = 1e-5,
        betas: tuple[Beta, Beta] = (0.7, 0.95),
        actor_clip_norm: Positive = 1.0,
        critic_clip_norm: Positive = 100.0,
        critic_passes: Count = 8,
        critic_minibatches: Count = 4,
        target_rate: Rate = 1.0,
        actor_average_rate: Rate = 1.0,
        actor_reference: Callable[[int, int, int], Actor] | None = None,
        parameter_tolerance: NonNegative = 0.02,
    ) -> None:
        super().__init__()
        check_options(PolicyLearning, locals())
        if final_lr > min(actor_lr, critic_lr):
            raise LitPWMError(
                f"PolicyLearning has final_lr {final_lr:g}, to which rates fall, but actor_lr {actor_lr:g} and "
                f"critic_lr {critic_lr:g}. Give a final_lr that is not larger than either."
            )
        self.automatic_optimization = False
        parts = {"actor": actor, "actor_reference": actor_reference, "critic": critic}
        self.save_hyperparameters(ignore=[name for name, part in parts.items() if not isinstance(part, Mapping)])
        self.world_model_checkpoint = str(absolute(world_model_checkpoint)) if world_model_checkpoint else None
        self.initial_policy_checkpoint = str(absolute(initial_policy_checkpoint)) if initial_policy_checkpoint else None
        self._make_actor = factory_from(actor, Actor)
        self._make_critic = factory_from(critic, CriticEnsemble)
        self._reference = None if actor_reference is None else factory_from(actor_reference, Actor)
        self.parameter_tolerance = parameter_tolerance
        self.horizon, self.gamma, self.lam = horizon, gamma, lam
        self.reward_space: RewardSpace = reward_space
        self.reward_scale, self.detach_actor_input = reward_scale, detach_actor_input
        self.actor_lr, self.critic_lr, self.final_lr, self.betas = actor_lr, critic_lr, final_lr, tuple(betas)
        self.actor_clip_norm, self.critic_clip_norm = actor_clip_norm, critic_clip_norm
        self.critic_passes, self.critic_minibatches, self.target_rate = critic_passes, critic_minibatches, target_rate
        self.actor_average_rate = actor_average_rate
        self.trained_tasks: tuple[str, ...] = ()

    # -- building ---------------------------------------------------------------------------------------------------
    @property
    def is_built(self) -> bool:
        """Whether the networks exist yet."""
        return "actor" in self._modules

    def configure_model(self) -> None:
        """Build the networks from the world model's checkpoint if there are none yet, and bind the data to them.

        Lightning calls this in every run, before the optimizers exist and before a checkpoint is restored.
        """
        if self._trainer is None:
            return
        require_supported_precision(self)
        source = source_of(self)
        if source.has_terminations:
            raise LitPWMError(
                "The data holds episodes that ended by termination. A world model without a continuation head "
                "imagines rewards beyond the end, so policies are trained only on data without terminations: leave "
                "those tasks out with data.tasks."
            )
        if not self.is_built:
            if not self.world_model_checkpoint:
                raise LitPWMError(
                    "PolicyLearning needs a world model, but world_model_checkpoint is not set. Give the checkpoint of "
                    "a pre-training run: --model.world_model_checkpoint RUN/.../last.ckpt."
                )
            world_model = load_world_model(self.world_model_checkpoint).train()
            with torch.device("cpu"):  # a seed gives the same weights wherever they are trained
                self._build(world_model, tuple(source.tasks), self._matched_actor)
            if self.initial_policy_checkpoint:
                load_actor_and_critic(self.initial_policy_checkpoint, self.world_model, self.actor, self.critic)
                self.averaged_actor.load_state_dict(self.actor.state_dict())
                self.target_critic.load_state_dict(self.critic.state_dict())
        bind(source, self.world_model)

    def _build_described(self, description: Mapping[str, Any], path: str) -> None:
        with building(path):
            self._make_critic = factory_from(description["critic"], CriticEnsemble)
            world_model, make_actor = WorldModel.from_description(description["world_model"]), description["actor"]
            self._build(world_model, tuple(description["trained_tasks"]), factory_from(make_actor, Actor))

    def _matched_actor(self, *dimensions: int) -> Actor:
        make = self._make_actor
        if self._reference is not None:
            make = match_parameters(make, self._reference, dimensions, self.parameter_tolerance)
        return make(*dimensions)

    def parity(self) -> Parity | None:
        """How the actor's number of parameters compares with the reference's; None without a reference."""
        if self._reference is None:
            return None
        return parity_of(self.actor, self._reference, self._actor_dimensions(self.world_model))

    @staticmethod
    def _actor_dimensions(world_model: WorldModel) -> tuple[int, int, int]:
        return world_model.latent_dim, world_model.action_dim, len(world_model.task_names)

    def _build(self, world_model: WorldModel, trained_tasks: tuple[str, ...], make_actor: Callable[..., Actor]) -> None:
        # The optimizer never sees the world model, and eval() and frozen weights come in `on_train_start`, after
        # DistributedDataParallel has wrapped the module.
        self.world_model, self.trained_tasks = world_model, trained_tasks
        self.actor = make_actor(*self._actor_dimensions(world_model))
        self.actor.set_action_mask(world_model.action_mask())
        self.averaged_actor = copy.deepcopy(self.actor)
        self.critic = self._make_critic(world_model.latent_dim, len(world_model.task_names))
        self.target_critic = copy.deepcopy(self.critic)
        self.return_stats = RunningStats(sums_dtype(self))
        # Drawn from the run's seed and saved, so that the noise of update k is the same after resuming.
        self.register_buffer("noise_seed", torch.randint(2**31, ()))

    def configure_optimizers(self) -> Any:
        """Adam for the actor and for the critics, each with linear decay."""
        betas, total = (self.betas[0], self.betas[1]), planned_updates(self)
        actor = torch.optim.Adam(self.actor.parameters(), lr=self.actor_lr, betas=betas, fused=True)
        critic = torch.optim.Adam(self.critic.parameters(), lr=self.critic_lr, betas=betas, fused=True)
        check_each_parameter_once(self.actor, actor)
        check_each_parameter_once(self.critic, critic)
        schedulers = [
            LambdaLR(actor, linear_decay(total, self.actor_lr, self.final_lr)),
            LambdaLR(critic, linear_decay(total, self.critic_lr, self.final_lr)),
        ]
        self._settings = settings_of([actor, critic])
        return [actor, critic], schedulers

    def on_train_start(self) -> None:
        """Freeze the world model and the slow copies; when resuming, let this run's learning rates win."""
        if (parity := self.parity()) is not None:
            parity.require(self.parameter_tolerance)
            rank_zero_info(f"actor {parity}")
        self._atomic = AtomicUpdate(self, self.trainer.optimizers[1:])
        apply_settings(self._settings, self.trainer.optimizers, cast("list[LambdaLR]", self.lr_schedulers()))
        self.world_model.eval().requires_grad_(False)
        self.target_critic.requires_grad_(False)
        self.averaged_actor.requires_grad_(False)

    def policy(self) -> Policy:
        """The policy as it is now, to act in environments with; shares its weights with this module.

        One that is trained in double precision acts in single precision, as its checkpoint will: then it is a copy.
        """
        policy = Policy(self.world_model, self.averaged_actor, self.trained_tasks)
        if self.world_model.obs_mean.dtype == torch.float32:
            return policy
        return copy.deepcopy(policy).float()

    # -- training ---------------------------------------------------------------------------------------------------
    def training_step(self, batch: Batch, batch_idx: int) -> None:
        """One update: the actor once, then the critics in several passes over the same imagined states."""
        task, generator = batch["task"], self._generator()
        actor_optimizer, critic_optimizer = cast("list[LightningOptimizer]", self.optimizers())
        with self._atomic as update:
            with torch.no_grad():
                z = self.world_model.encode(batch["obs"][0], task)
            rollout, returns = self.imagined_returns(z, task, self._draw_noise(len(task), generator))
            self.return_stats.update(cast("Tensor", self.all_gather(RunningStats.moments(-returns))))
            loss, mean_return = self.actor_loss(returns), returns.detach().mean()
            actor_norm = compute_gradients(self, actor_optimizer, loss, self.actor_clip_norm)
            update.watch("actor", loss, actor_norm)
            critic_loss, critic_norm = self._fit_critics(rollout, task, critic_optimizer, generator)
        # The actor is the one that counts updates, because it steps once in each: nothing can be refused any more.
        take_step(self, actor_optimizer)
        follow_(self.target_critic, self.critic, self.target_rate)
        follow_(self.averaged_actor, self.actor, self.actor_average_rate)
        for scheduler in cast("list[LambdaLR]", self.lr_schedulers()):
            scheduler.step()

        if logs_now(self):
            self.log("train/imagined_return", mean_return, prog_bar=True, batch_size=len(task), sync_dist=True)
            parts = {
                "train/actor_loss": loss.detach(),
                "train/critic_loss": critic_loss,
                "train/actor_gradient_norm": actor_norm,
                "train/critic_gradient_norm": critic_norm,
                "train/imagined_reward": rollout.rewards.detach().mean(),
                "train/return_std": self.return_stats.var.sqrt().float(),
            }
            self.log_dict(parts, batch_size=len(task), sync_dist=True)

    def imagined_returns(self, z: Tensor, task: Tensor, noise: Tensor) -> tuple[Imagined, Tensor]:
        """What an update of the actor is made from; nothing of this module changes.

        Args:
            z: first latents [B, Z].
            task: task ids [B].
            noise: the actor's standard normal noise [H, B, A].

        Returns:
            The rollout, and the discounted return of each start [B], with gradient to the actor.
        """
        found = imagine(self.world_model, self.actor, z, task, noise, self.reward_space, self.detach_actor_input)
        rollout = Imagined(found.latents, found.actions, self.reward_scale * found.rewards)
        value = self.target_critic.minimum(rollout.latents[-1], task)
        return rollout, discounted_return(rollout.rewards, value, self.gamma, self.gamma**self.horizon)

    def actor_loss(self, returns: Tensor) -> Tensor:
        """PWM's loss of returns [B]: their negative mean, divided by the running deviation of all returns so far."""
        return -returns.mean() / (self.return_stats.var + 1e-5).sqrt().to(returns.dtype)

    def critic_loss(self, states: Tensor, task: Tensor, targets: Tensor) -> Tensor:
        """Mean squared error of all critics at latents [N, Z] of task ids [N], whose TD(λ) targets are [N]."""
        return (self.critic(states, task) - targets).square().mean()

    def update_noise(self, batch_size: int) -> Tensor:
        """The actor's noise [H, B, A] in the next update, which draws the same again."""
        return self._draw_noise(batch_size, self._generator())

    def _draw_noise(self, batch_size: int, generator: torch.Generator) -> Tensor:
        shape = self.horizon, batch_size, self.world_model.action_dim
        return torch.randn(shape, generator=generator, device=self.device, dtype=self.world_model.obs_mean.dtype)

    def _fit_critics(
        self, rollout: Imagined, task: Tensor, optimizer: LightningOptimizer, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Several passes of minibatches; returns the mean loss and the last gradient norm."""
        latents = rollout.latents.detach()
        with torch.no_grad():
            next_values = self.target_critic.minimum(latents[1:], task)
            targets = td_lambda(rollout.rewards.detach(), next_values, self.gamma, self.lam).flatten()
        states, tasks = latents[:-1].flatten(0, 1), task.expand(self.horizon, -1).flatten()
        losses, norm = [], torch.zeros(())
        for _ in range(self.critic_passes):
            order = torch.randperm(len(states), generator=generator, device=states.device)
            for chosen in order.chunk(self.critic_minibatches):
                loss = self.critic_loss(states[chosen], tasks[chosen], targets[chosen])
                norm = compute_gradients(self, optimizer, loss, self.critic_clip_norm)
                take_step(self, optimizer, ticks=False)
                losses.append(loss.detach())
                self._atomic.watch(f"critic (minibatch {len(losses)})", loss, norm)
        return torch.stack(losses).mean(), norm

    def _generator(self) -> torch.Generator:
        """Noise that is a function of the run's seed, the update and the rank, so that resuming repeats it."""
        generator = torch.Generator(self.device)
        generator.manual_seed(int(self.noise_seed) + 1_000_003 * self.global_step + 7_919_000_003 * self.global_rank)
        return generator

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """What the deterministic policy earns in imagination from held-out observations."""
        task = batch["task"]
        z = self.world_model.encode(batch["obs"][0], task)
        noise = z.new_zeros(self.horizon, len(task), self.world_model.action_dim)
        rollout = imagine(self.world_model, self.averaged_actor, z, task, noise, "raw", deterministic=True)
        self.log("val/imagined_reward", rollout.rewards.mean(), batch_size=len(task), sync_dist=True)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """As validation."""
        self.validation_step(batch, batch_idx)

    # -- checkpoints ------------------------------------------------------------------------------------------------
    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Describe the networks beside their weights; the world model is part of the checkpoint."""
        checkpoint[DESCRIPTION_KEY] = self._description()

    def _description(self) -> dict[str, Any]:
        return describe_policy(self.world_model, self.actor, self.critic, self.trained_tasks)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Build the networks that the checkpoint holds, in its order of tasks, or refuse one of other networks."""
        path = "being loaded" if self._trainer is None else str(self.trainer.ckpt_path)
        description = description_of(checkpoint, path)
        if description["kind"] != "policy":
            raise LitPWMError(
                f"The checkpoint {path!r} holds a {description['kind']}, and policy learning resumes from its own "
                f"checkpoints. To start a policy on a world model, give it as model.world_model_checkpoint."
            )
        if not self.is_built:
            self._build_described(description, path)
        trained = tuple(description["trained_tasks"])
        check_same_networks(self._description() | {"trained_tasks": list(trained)}, description, path)
        if not self.world_model.numbers_tasks_like(description["world_model"]):
            self._build_described(description, path)
        self.trained_tasks = trained
        if self._trainer is not None:
            source = source_of(self)
            bind(source, self.world_model)
            self._require_trained_tasks(source, path)

    def _require_trained_tasks(self, source: DataSource, path: str) -> None:
        new = [name for name in source.tasks if name not in self.trained_tasks]
        if new and self.trainer.state.fn != TrainerFn.FITTING:
            rank_zero_info(f"The policy was trained for {', '.join(self.trained_tasks)}, and not for {', '.join(new)}.")
        elif new:
            raise LitPWMError(
                f"The policy in the checkpoint {path!r} was trained for {', '.join(self.trained_tasks)}, and the data "
                f"also holds {', '.join(new)}. Choose tasks of the policy with data.tasks, or start a run for all of "
                f"them from it: give it as model.initial_policy_checkpoint instead of ckpt_path."
            )
