"""Policy learning by first-order gradients through a world model (PWM, arXiv 2407.02466), as a LightningModule."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, cast

import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR

from lit_pwm.batch import Batch
from lit_pwm.checkpoints.references import SaveWorldModel
from lit_pwm.imagination import Imagined, discounted_return, imagine, td_lambda
from lit_pwm.losses import WorldModelObjective, objective_from
from lit_pwm.models.actor_parity import ActorParity
from lit_pwm.models.actors import Actor, MLPActor
from lit_pwm.models.component import factory_from
from lit_pwm.models.critics import CriticEnsemble
from lit_pwm.models.noise import seed_noise
from lit_pwm.models.world_model_options import WorldModelOptions
from lit_pwm.optim import (
    apply_settings,
    check_each_parameter_once,
    linear_decay,
    logs_now,
    planned_updates,
    settings_of,
)
from lit_pwm.options import Count, File, Fraction, check_options
from lit_pwm.options.objects import group_of
from lit_pwm.options.optimizers import WorldModelOptimizer
from lit_pwm.options.policy_optimizers import ActorOptimizer, CriticOptimizer
from lit_pwm.options.renamed import AcceptsOldSpellings
from lit_pwm.options.return_units import ReturnOptions
from lit_pwm.paths import located
from lit_pwm.runtime.casts import cached_casts
from lit_pwm.updates.atomic_update import AtomicUpdate
from lit_pwm.updates.binding import hold_absent_tasks, notice_unused_stream, source_of
from lit_pwm.updates.draws import Draws, stream_seed
from lit_pwm.updates.finetuning import Plan, require_all_open
from lit_pwm.updates.from_checkpoint import arrange_by_group, plain, require_file_of_tasks
from lit_pwm.updates.minibatches import Deal, require_dealable
from lit_pwm.updates.new_tasks import check_new_tasks
from lit_pwm.updates.optimized_part import OptimizedPart, Rates, count_update, rates_of
from lit_pwm.updates.policy_networks import PolicyMakers, PolicyNetworks
from lit_pwm.updates.world_model_steps import WorldModelSteps

_KEPT_PLAIN = ("world_model_optimizer", "returns", "actor_parity", "world_model", "objective")
_ACTOR_OPTIMIZER, _CRITIC_OPTIMIZER = ActorOptimizer(), CriticOptimizer()
_WORLD_MODEL_OPTIMIZER, _RETURNS, _ACTOR_PARITY = WorldModelOptimizer(), ReturnOptions(), ActorParity()


class PolicyLearning(PolicyNetworks, metaclass=AcceptsOldSpellings):
    """Trains an actor and an ensemble of critics on rollouts imagined by a world model.

    Each update starts from the first observations of dataset slices, imagines H steps, moves the actor along the
    gradient of its normalised return through the world model, and fits the critics to TD(λ) targets. One policy serves
    all tasks of the data; let actor and critic look at the task (`task_dim`) when there are several.

    The world model is frozen, unless `callbacks.FinetuneSchedule` opens parts of it: its steps, by its own objective on
    the data's second stream, then come first in an update, and the policy learns on the model as they leave it.

    Args:
        world_model_checkpoint: a checkpoint that holds a world model, of pre-training or of policy learning, or a file
            of any format in docs/checkpoints.md. Without one, the world model starts from fresh weights and is trained
            with the policy, which needs `callbacks.FinetuneSchedule` (configs/joint.yaml).
        initial_policy_checkpoint: start from the actor and critics of this policy instead of fresh weights, for
            example after the world model was trained further; they must be of the same kinds and sizes.
        actor: the actor class and its options; dimensions come from the world model.
        critic: the critics' class and options.
        horizon: imagined steps H.
        gamma: discount.
        lam: λ of the critics' targets.
        returns: in which units rewards are trained on, and what returns are divided by.
        detach_actor_input: cut the gradient at the actor's input (as PWM).
        actor_optimizer: how the actor steps, and how its average follows.
        critic_optimizer: how the critics step, in which passes and minibatches, and how their targets follow.
        actor_parity: an actor whose number of parameters this one is to have.
        world_model: what a world model without checkpoint is to be made of, as in pre-training; refused beside a
            checkpoint.
        objective: the world model's objective, as in pre-training, by which validation also reports how well it
            predicts this run's data (`val/world_model_loss`). Where the model is trained and none is given, that of its
            checkpoint.
        world_model_optimizer: how the world model steps where it is trained; an opening may set another rate.
        save_world_model: `full` saves the world model with each checkpoint; `reference` its fingerprint and the file
            that it came from alone, which readers then need (`--world-model FILE`).
        checkpoint_tasks: names of the tasks in `world_model_checkpoint` and `initial_policy_checkpoint`, in the order
            of their rows, where a file does not say them; or a task set's name.
        new_tasks: tasks of the data that the checkpoints' world model or policy have never seen, each with the known
            task that its embedding and the actor's and critics' inputs start as, or `mean` for the mean over all:
            `{my-robot: cheetah-run}`.
    """

    def __init__(
        self,
        world_model_checkpoint: File | None = None,
        initial_policy_checkpoint: File | None = None,
        actor: Callable[[int, int, int], Actor] = MLPActor,
        critic: Callable[[int, int], CriticEnsemble] = CriticEnsemble,
        horizon: Count = 16,
        gamma: Fraction = 0.99,
        lam: Fraction = 0.95,
        returns: ReturnOptions = _RETURNS,
        detach_actor_input: bool = True,
        actor_optimizer: ActorOptimizer = _ACTOR_OPTIMIZER,
        critic_optimizer: CriticOptimizer = _CRITIC_OPTIMIZER,
        actor_parity: ActorParity = _ACTOR_PARITY,
        world_model: WorldModelOptions | None = None,
        objective: Callable[[], WorldModelObjective] | WorldModelObjective | None = None,
        world_model_optimizer: WorldModelOptimizer = _WORLD_MODEL_OPTIMIZER,
        save_world_model: SaveWorldModel = "full",
        checkpoint_tasks: list[str] | None = None,
        new_tasks: dict[str, str] | None = None,
    ) -> None:
        super().__init__()
        check_options(PolicyLearning, locals())
        self.actor_optimizer = group_of(ActorOptimizer, actor_optimizer, "actor_optimizer")
        self.critic_optimizer = group_of(CriticOptimizer, critic_optimizer, "critic_optimizer")
        self.world_model_optimizer = group_of(WorldModelOptimizer, world_model_optimizer, "world_model_optimizer")
        self.returns = group_of(ReturnOptions, returns, "returns")
        parity = group_of(ActorParity, actor_parity, "actor_parity")
        require_dealable(horizon, self.critic_optimizer.minibatches)
        self.automatic_optimization = False
        self.pretrained = None
        # Plain values, because checkpoints are read without running code of theirs.
        actor_optimizer, critic_optimizer = plain(asdict(self.actor_optimizer)), plain(asdict(self.critic_optimizer))
        ignored = [name for name, part in {"actor": actor, "critic": critic}.items() if not isinstance(part, Mapping)]
        self.save_hyperparameters(ignore=[*ignored, *_KEPT_PLAIN])
        self.world_model_options = (
            None if world_model is None else group_of(WorldModelOptions, world_model, "world_model")
        )
        self.objective = None if objective is None else objective_from(objective)
        self.keep_plain(
            world_model_optimizer=asdict(self.world_model_optimizer),
            returns=asdict(self.returns),
            actor_parity=parity.plain(),
            world_model=None if self.world_model_options is None else self.world_model_options.plain(),
            objective=None if self.objective is None else self.objective.description(),
        )
        self.world_model_checkpoint = located(world_model_checkpoint) if world_model_checkpoint else None
        self.initial_policy_checkpoint = located(initial_policy_checkpoint) if initial_policy_checkpoint else None
        require_file_of_tasks(
            checkpoint_tasks,
            world_model_checkpoint=world_model_checkpoint,
            initial_policy_checkpoint=initial_policy_checkpoint,
        )
        self.checkpoint_tasks = checkpoint_tasks
        self.new_tasks = check_new_tasks(new_tasks, self.world_model_checkpoint, "world_model_checkpoint")
        self.makes = PolicyMakers(
            factory_from(actor, Actor),
            factory_from(critic, CriticEnsemble),
            None if parity.reference is None else factory_from(parity.reference, Actor),
            parity.tolerance,
        )
        self.save_world_model: SaveWorldModel = save_world_model
        self.horizon, self.gamma, self.lam = horizon, gamma, lam
        self.detach_actor_input = detach_actor_input
        self.returns_of_each_task = self.returns.scale == "task"
        self._dealt: Deal | None = None

    # -- optimizers -------------------------------------------------------------------------------------------------
    def configure_optimizers(self) -> Any:
        """Adam for the actor and for the critics, each with linear decay; AdamW for the world model, by its plan."""
        total, optimizers, schedulers = planned_updates(self), [], []
        for name, settings in (("actor", self.actor_optimizer), ("critic", self.critic_optimizer)):
            group = {"name": name, "params": list(getattr(self, name).parameters())}
            optimizer = torch.optim.Adam([group], lr=settings.lr, betas=settings.betas, fused=True)
            check_each_parameter_once(getattr(self, name), optimizer)
            optimizers.append(optimizer)
            schedulers.append(LambdaLR(optimizer, linear_decay(total, settings.lr, settings.final_lr)))
        settings = self.world_model_optimizer
        groups = (self.objective or WorldModelObjective()).parameter_groups(self.world_model, settings)
        self._plan = Plan(self.finetuning, groups, settings, total)
        if self.starts_fresh:
            require_all_open(self._plan, groups)
        betas = (settings.betas[0], settings.betas[1])
        optimizers.append(
            torch.optim.AdamW(groups, lr=settings.lr, betas=betas, weight_decay=settings.weight_decay, fused=True)
        )
        check_each_parameter_once(self.world_model, optimizers[-1])
        self._settings = settings_of(optimizers)
        return optimizers, schedulers

    def on_train_start(self) -> None:
        """Freeze what is not trained, and let this run's learning rates win over those of a run that is resumed.

        What the schedule opens comes last: it follows from the update at which the run starts.
        """
        if (parity := self.parity()) is not None:
            parity.require(self.makes.tolerance)
            rank_zero_info(f"actor {parity}")
        if self.save_world_model == "reference":
            self.check_reference()
        if (options := self.world_model_options) and (parity := options.parity(self.world_model)) is not None:
            parity.require(options.parameter_tolerance)
            rank_zero_info(f"dynamics {parity}")
        *policy, _ = self._settings
        apply_settings(policy, self.trainer.optimizers[: len(policy)], cast("list[LambdaLR]", self.lr_schedulers()))
        for group, wanted in zip(self.trainer.optimizers[-1].param_groups, self._settings[-1], strict=True):
            group.update(wanted)
        if self.finetuning is not None:
            source = source_of(self)
            hold_absent_tasks(self.world_model, getattr(source, "second_tasks", source.tasks))
        else:
            notice_unused_stream(
                source_of(self), "its world model is frozen. Add callbacks.FinetuneSchedule, or leave data.second out."
            )
        self.prepare_updates(self.trainer.optimizers)

    def prepare_updates(self, optimizers: Sequence[torch.optim.Optimizer]) -> None:
        """Freeze what `update` does not train, and find once what it would look for each time.

        Args:
            optimizers: those of `configure_optimizers`, by the names of their groups.
        """
        self.world_model.eval().requires_grad_(False)
        self.target_critic.requires_grad_(False)
        self.averaged_actor.requires_grad_(False)
        if self.pretrained is not None:
            self.pretrained.eval().requires_grad_(False)
        actor, critic, world_model = optimizers
        self.optimized = {
            "actor": OptimizedPart(self, "actor", actor, self.actor_optimizer.clip_norm, leads=True),
            "critic": OptimizedPart(self, "critic", critic, self.critic_optimizer.clip_norm),
        }
        for part in self.optimized.values():
            part.create_states()
        self.optimized["world_model"] = OptimizedPart(
            self, "world_model", world_model, self.world_model_optimizer.clip_norm
        )
        early = [self.optimized["world_model"], self.optimized["critic"]]
        self._atomic, self._seed = AtomicUpdate(self, early), int(self.noise_seed)
        pull = None if self.finetuning is None else self.finetuning.pull
        self.model_steps = WorldModelSteps(
            self, self.world_model, self.objective or WorldModelObjective(), self.optimized["world_model"], self._plan,
            pull, self.pretrained,
        )  # fmt: skip
        self.model_steps.values = self.take_values()
        self.model_steps.arrive(self.global_step)

    # -- training ---------------------------------------------------------------------------------------------------
    def training_step(self, batch: Batch, batch_idx: int) -> None:
        """Draw for one update, make it, and count it if it was made."""
        size = len(batch["task"])
        noise, minibatches = self.update_noise(size) | self.world_model_noise(batch), self.update_minibatches(size)
        seed = stream_seed(self._seed, f"global generators, rank {self.global_rank}", self.global_step)
        with self._atomic.streams.seeded(seed, self.device, watched=self.trainer.world_size > 1):
            found = self.update(batch, noise, minibatches, rates_of(self.optimized.values()))
        self._atomic.require()
        steps = cast("WorldModelSteps", self.model_steps)
        steps.accept()
        found, learning_rates = found | steps.values, steps.rates()
        count_update(self)
        steps.arrive(self.global_step)
        for scheduler in cast("list[LambdaLR]", self.lr_schedulers()):
            scheduler.step()
        if logs_now(self):
            imagined_return = found.pop("imagined_return")
            self.log("train/imagined_return", imagined_return, prog_bar=True, batch_size=size, sync_dist=True)
            logged: dict[str, Any] = found | learning_rates
            self.log_dict({f"train/{name}": value for name, value in logged.items()}, batch_size=size, sync_dist=True)

    def update(
        self,
        batch: Batch,
        noise: Mapping[str, Tensor],
        minibatches: Sequence[Tensor],
        rates: Rates | None = None,
        terminal_discount: float | None = None,
    ) -> dict[str, Tensor]:
        """One update: the world model if it is due, the actor, and the critics.

        The actor steps once, on what the world model imagines after its own step, and the critics once for each
        minibatch of the same imagined states.

        It reads no number on the host, and moves nothing if a loss or gradient of it is not finite on any rank
        (`lit_pwm.updates.atomic_update`, whose `require` says so).

        Args:
            batch: slices, of which the first observations `obs[0]` [B, O] and `task` [B] are used; and under `second`
                those that the world model learns from, if parts of it are open and it is due.
            noise: standard normal numbers: `actor` [H, B, A], and `dynamics` [H, B, *noise_shape] where the dynamics
                sample; and what `world_model_noise` names.
            minibatches: the critics' minibatches in order, each as indices [n] into the H·B imagined states, of which
                state t of start b is number t·B + b.
            rates: learning rates by the name of the group: `actor`, `critic`, and, where the world model is due, those
                of its parts; as the schedules left them if not given.
            terminal_discount: factor of the last state's value in returns; γ^H if not given.

        Returns:
            What is logged, scalars of this rank without gradient, by name.
        """
        task, actor, critic = batch["task"], self.optimized["actor"], self.optimized["critic"]
        for part in (actor, critic):
            part.set_rates(rates)
        discount = {} if terminal_discount is None else {"terminal_discount": terminal_discount}
        draws = [noise[name] for name in ("actor", "dynamics") if name in noise]
        steps = cast("WorldModelSteps", self.model_steps)
        second = steps.due(batch)
        with self._atomic as update:
            if second is not None:
                steps.part.set_rates(rates)
                with steps.training():
                    steps.step(self.world_model_loss(second, noise), update)
            with torch.no_grad():
                z = self.world_model.encode(batch["obs"][0], task)
            with cached_casts(self.device, frozen=[self.world_model, self.target_critic]):
                rollout, returns = self.imagined_returns(z, task, *draws, **discount)
            self.return_stats.merge(-returns, task)
            loss = self.actor_loss(returns, task)
            actor_norm = actor.compute_gradients(loss)
            update.watch("actor", loss, actor_norm)
            critic_loss, critic_norm = self._fit_critics(rollout, task, minibatches, critic)
        update.step(actor)
        if second is not None:
            steps.follow(update)
        update.follow(self.target_critic, self.critic, self.critic_optimizer.target_rate)
        update.follow(self.averaged_actor, self.actor, self.actor_optimizer.average_rate)
        return {
            "imagined_return": returns.detach().mean(),
            "actor_loss": loss.detach(),
            "critic_loss": critic_loss,
            "actor_gradient_norm": actor_norm,
            "critic_gradient_norm": critic_norm,
            "imagined_reward": rollout.rewards.detach().mean(),
            "return_std": self.return_stats.var.sqrt().mean().float(),
        }

    def world_model_loss(self, batch: Batch, noise: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What a step of the world model descends on (`total`), and its parts, for slices of the second stream."""
        return cast("WorldModelSteps", self.model_steps).loss(batch, noise)

    def imagined_returns(
        self,
        z: Tensor,
        task: Tensor,
        noise: Tensor,
        dynamics_noise: Tensor | None = None,
        *,
        terminal_discount: float | None = None,
    ) -> tuple[Imagined, Tensor]:
        """What an update of the actor is made from; nothing of this module changes.

        Args:
            z: first latents [B, Z].
            task: task ids [B].
            noise: the actor's standard normal noise [H, B, A].
            dynamics_noise: that of dynamics which sample [H, B, *noise_shape].
            terminal_discount: factor of the last state's value; γ^H if not given.

        Returns:
            The rollout, and the discounted return of each start [B], with gradient to the actor.
        """
        found = imagine(
            self.world_model, self.actor, z, task, noise, self.returns.reward_space, self.detach_actor_input,
            dynamics_noise=dynamics_noise,
        )  # fmt: skip
        rollout = Imagined(found.latents, found.actions, self.returns.reward_scale * found.rewards)
        value = self.target_critic.minimum(rollout.latents[-1], task)
        return rollout, discounted_return(rollout.rewards, value, self.gamma, terminal_discount)

    def actor_loss(self, returns: Tensor, task: Tensor) -> Tensor:
        """PWM's loss of returns [B]: their negative mean, divided by the running deviation of all returns so far."""
        deviation = (self.return_stats.var + 1e-5).sqrt().to(returns.dtype)
        if self.returns_of_each_task:
            return -(returns / deviation[task]).mean()
        return -returns.mean() / deviation

    def critic_loss(self, states: Tensor, task: Tensor, targets: Tensor) -> Tensor:
        """Mean squared error of all critics at latents [N, Z] of task ids [N], whose TD(λ) targets are [N]."""
        return (self.critic(states, task) - targets).square().mean()

    def _fit_critics(
        self, rollout: Imagined, task: Tensor, minibatches: Sequence[Tensor], critic: OptimizedPart
    ) -> tuple[Tensor, Tensor]:
        """Step once for each minibatch; returns the mean loss and the last gradient norm."""
        latents = rollout.latents.detach()
        with torch.no_grad():
            next_values = self.target_critic.minimum(latents[1:], task)
            targets = td_lambda(rollout.rewards.detach(), next_values, self.gamma, self.lam).flatten()
        states, tasks = latents[:-1].flatten(0, 1), task.expand(self.horizon, -1).flatten()
        factors, losses, norm = self._deal(len(task)).factors, [], torch.zeros(())
        for number, chosen in enumerate(minibatches):
            with cached_casts(self.device):
                loss = self.critic_loss(states[chosen], tasks[chosen], targets[chosen])
            if (factor := factors[number % len(factors)]) != 1:
                loss = factor * loss
            norm = critic.compute_gradients(loss)
            critic.step()
            losses.append(loss.detach())
            self._atomic.watch(f"critic (minibatch {len(losses)})", loss, norm)
        return torch.stack(losses).mean(), norm

    # -- draws ------------------------------------------------------------------------------------------------------
    def update_noise(self, batch_size: int) -> dict[str, Tensor]:
        """The noise of the next update, which draws the same again: `update` says what it is."""
        return self._noise(self._draws(self._seed, self.global_step), batch_size)

    def world_model_noise(self, batch: Batch) -> dict[str, Tensor]:
        """What the world model's step in the next update draws, [B, *shape] each; nothing where it makes none."""
        steps = cast("WorldModelSteps", self.model_steps)
        second = steps.due(batch)
        return {} if second is None else steps.noise(second, self._draws(self._seed, self.global_step))

    def update_minibatches(self, batch_size: int) -> list[Tensor]:
        """The critics' minibatches of the next update, of all passes in order (`lit_pwm.updates.minibatches`)."""
        draws, deal = self._draws(self._seed, self.global_step), self._deal(batch_size)
        passes = range(self.critic_optimizer.passes)
        orders = (draws.permutations(f"critic pass {number}", batch_size, self.horizon) for number in passes)
        return [minibatch for order in orders for minibatch in deal(order)]

    def _draws(self, seed: int, number: int) -> Draws:
        ranks = 1 if self._trainer is None else self.trainer.world_size
        return Draws(seed, number, self.global_rank, ranks, self.device, self.world_model.obs_mean.dtype)

    def _noise(self, draws: Draws, batch_size: int) -> dict[str, Tensor]:
        shapes: dict[str, tuple[int, ...]] = {"actor": (self.world_model.action_dim,)}
        if (own := self.world_model.dynamics.noise_shape) is not None:
            shapes["dynamics"] = own
        return {
            name: draws.normal(name, batch_size, (self.horizon, *shape)).movedim(1, 0) for name, shape in shapes.items()
        }

    def _deal(self, batch_size: int) -> Deal:
        if self._dealt is None or self._dealt.batch_size != batch_size or self._dealt.device != self.device:
            ranks = 1 if self._trainer is None else self.trainer.world_size
            minibatches = self.critic_optimizer.minibatches
            self._dealt = Deal(self.horizon, minibatches, batch_size, self.global_rank, ranks, self.device)
        return self._dealt

    def on_validation_epoch_start(self) -> None:
        """World models that sample draw the same in each validation, so that losses can be compared."""
        seed_noise(self.world_model, self.global_rank)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """What the deterministic policy earns in imagination from held-out observations."""
        task = batch["task"]
        z = self.world_model.encode(batch["obs"][0], task)
        # Of a stream of its own, the same at every validation.
        noise = self._noise(self._draws(stream_seed(int(self.noise_seed), "validation", 0), batch_idx), len(task))
        rollout = imagine(
            self.world_model, self.averaged_actor, z, task, noise["actor"], "raw", deterministic=True,
            dynamics_noise=noise.get("dynamics"),
        )  # fmt: skip
        self.log("val/imagined_reward", rollout.rewards.mean(), batch_size=len(task), sync_dist=True)
        if self.objective is not None:
            loss = self.objective(self.world_model, batch)["total"]
            self.log("val/world_model_loss", loss, batch_size=len(task), sync_dist=True)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Build the networks that the checkpoint holds, and bring the optimizers' groups into this run's order."""
        super().on_load_checkpoint(checkpoint)
        if self.is_resumed:
            objective = self.objective or WorldModelObjective()
            groups = objective.parameter_groups(self.world_model, self.world_model_optimizer)
            policy = [[(name, len(list(getattr(self, name).parameters())))] for name in ("actor", "critic")]
            model = [(group["name"], len(group["params"])) for group in groups]
            arrange_by_group(checkpoint, [*policy, model], self.restored_path)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """As validation."""
        self.validation_step(batch, batch_idx)
