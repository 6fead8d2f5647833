"""What policy learning makes ready before its first update: optimizers, schedules and frozen weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from torch.optim.lr_scheduler import LambdaLR

from lit_pwm.losses import WorldModelObjective
from lit_pwm.models.continuation_head import CONTINUATION
from lit_pwm.optim import apply_settings, check_each_parameter_once, linear_decay, planned_updates, settings_of
from lit_pwm.options.optimizers import WorldModelOptimizer
from lit_pwm.options.policy_optimizers import ActorOptimizer, CriticOptimizer
from lit_pwm.updates.atomic_update import AtomicUpdate
from lit_pwm.updates.binding import hold_absent_tasks, notice_unused_stream, source_of
from lit_pwm.updates.ends import learn_ends
from lit_pwm.updates.finetuning import Plan, require_all_open
from lit_pwm.updates.from_checkpoint import arrange_by_group
from lit_pwm.updates.optimized_part import OptimizedPart
from lit_pwm.updates.policy_checkpoints import PolicyCheckpoints
from lit_pwm.updates.world_model_steps import WorldModelSteps


class PolicyPreparation(PolicyCheckpoints):
    """The part of policy learning that holds what steps its networks; a subclass sets the settings in its constructor.

    Attributes:
        actor_optimizer: how the actor steps.
        critic_optimizer: how the critics step.
        world_model_optimizer: how the world model steps where it is trained.
        optimized: from `prepare_updates` on, what steps each network, by its name.
    """

    actor_optimizer: ActorOptimizer
    critic_optimizer: CriticOptimizer
    world_model_optimizer: WorldModelOptimizer
    optimized: dict[str, OptimizedPart]
    _atomic: AtomicUpdate
    _seed: int

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
        source = source_of(self)
        trained = CONTINUATION in self._plan.open_at(planned_updates(self) - 1)
        learn_ends(source, self.world_model, trained_on="second" if trained else None)
        if self.finetuning is not None:
            hold_absent_tasks(self.world_model, getattr(source, "second_tasks", source.tasks))
        else:
            notice_unused_stream(
                source, "its world model is frozen. Add callbacks.FinetuneSchedule, or leave data.second out."
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

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Build the networks that the checkpoint holds, and bring the optimizers' groups into this run's order."""
        super().on_load_checkpoint(checkpoint)
        if self.is_resumed:
            objective = self.objective or WorldModelObjective()
            groups = objective.parameter_groups(self.world_model, self.world_model_optimizer)
            policy = [[(name, len(list(getattr(self, name).parameters())))] for name in ("actor", "critic")]
            model = [(group["name"], len(group["params"])) for group in groups]
            arrange_by_group(checkpoint, [*policy, model], self.restored_path)
