"""The networks of policy learning: built on a world model, or from a description of them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from lit_pwm.batch import DataSource
from lit_pwm.checkpoints.formats.format_registry import read_any
from lit_pwm.checkpoints.native import (
    building,
    described_world_model,
    description_of,
    initial_world_model,
    load_actor_and_critic,
)
from lit_pwm.checkpoints.references import SaveWorldModel, fingerprint_of
from lit_pwm.errors import LitPWMError
from lit_pwm.models.actors import Actor
from lit_pwm.models.component import factory_from
from lit_pwm.models.critics import CriticEnsemble
from lit_pwm.models.growing import already_known
from lit_pwm.models.parity import Parity, parity_of
from lit_pwm.models.policy import Policy
from lit_pwm.models.running_stats import RunningStats
from lit_pwm.models.world_model import WorldModel
from lit_pwm.models.world_model_options import WorldModelOptions
from lit_pwm.updates.binding import ask_for_first_observations, bind, source_of
from lit_pwm.updates.fresh_world_model import fresh_world_model
from lit_pwm.updates.from_checkpoint import BuiltFromCheckpoint
from lit_pwm.updates.frozen_model import FrozenModel
from lit_pwm.updates.further_training import FurtherTraining
from lit_pwm.updates.new_tasks import require_data, with_new_tasks
from lit_pwm.updates.policy_makers import PolicyMakers
from lit_pwm.updates.precision import require_supported_precision, sums_dtype


class PolicyNetworks(BuiltFromCheckpoint, FurtherTraining):
    """The part of policy learning that holds the networks; a subclass sets the attributes below in its constructor.

    Attributes:
        makes: what makes the networks.
        world_model_checkpoint: the file that a fresh run takes its world model from.
        initial_policy_checkpoint: the file that a fresh run takes the weights of actor and critics from, if any.
        checkpoint_tasks: names of the tasks in these files, where they do not say them.
        returns_of_each_task: whether return statistics are kept for each task.
        world_model_options: what a world model without checkpoint is to be made of; None for the defaults.
        starts_fresh: whether the world model was given fresh weights in this run.
        save_world_model: whether checkpoints hold the world model, or refer to it.
        new_tasks: tasks that the world model, or the policy that a fresh run takes its weights from, has never seen,
            each with the known one that it starts as.
    """

    makes: PolicyMakers
    world_model_checkpoint: str | None
    initial_policy_checkpoint: str | None
    checkpoint_tasks: list[str] | None
    returns_of_each_task: bool
    world_model_options: WorldModelOptions | None
    save_world_model: SaveWorldModel
    new_tasks: dict[str, str]

    world_model: WorldModel
    actor: Actor
    averaged_actor: Actor
    """EMA (Polyak average) of the actor: the policy."""
    critic: CriticEnsemble
    target_critic: CriticEnsemble
    """Target network of the critics, by soft updates."""
    return_stats: RunningStats
    noise_seed: Tensor
    trained_tasks: tuple[str, ...] = ()
    _frozen: FrozenModel | None = None
    starts_fresh: bool = False

    # -- building ---------------------------------------------------------------------------------------------------
    @property
    def is_built(self) -> bool:
        """Whether the networks exist yet."""
        return "actor" in self._modules

    def configure_model(self) -> None:
        """Build the networks on the world model's checkpoint if there are none yet, and bind the data to them.

        Lightning calls this in every run, before the optimizers exist and before a checkpoint is restored, from which
        they are built if there is one (`on_load_checkpoint`).
        """
        if self._trainer is None:
            return
        require_supported_precision(self)
        source = source_of(self)
        ask_for_first_observations(source)
        if not self.is_built:
            if self.checkpoint_to_restore is not None:
                return
            self._build_fresh(source)
        self.make_trainable(self._objective_of_origin(), not self.starts_fresh)
        bind(source, self.world_model)

    def _build_fresh(self, source: DataSource) -> None:
        known, unknown = self._initial_world_model(source)
        world_model = with_new_tasks(known, unknown, source)
        with torch.device("cpu"):  # a seed gives the same weights wherever they are trained
            self._build(world_model, tuple(source.tasks), self.makes.matched_actor, self.makes.critic)
        if self.initial_policy_checkpoint:
            networks = self.world_model, self.actor, self.critic
            grown = load_actor_and_critic(
                self.initial_policy_checkpoint, *networks, self.checkpoint_tasks, self.new_tasks
            )
            for name in self.new_tasks:
                if name not in unknown and name not in grown:
                    raise already_known(name, known.task_names)
            self.averaged_actor.load_state_dict(self.actor.state_dict())
            self.target_critic.load_state_dict(self.critic.state_dict())

    def _initial_world_model(self, source: DataSource) -> tuple[WorldModel, dict[str, str]]:
        """The world model that the run starts on, and the new tasks that it is to learn of."""
        if self.world_model_checkpoint:
            if self.world_model_options is not None:
                raise LitPWMError(
                    f"model.world_model says what a world model is to be made of, and model.world_model_checkpoint "
                    f"{self.world_model_checkpoint!r} brings one of its own. Leave the world model's config "
                    f"(configs/world_model/...) out to train the policy on the checkpoint's; or leave the checkpoint "
                    f"out to train both from scratch: --config configs/joint.yaml."
                )
            known = initial_world_model(
                self.world_model_checkpoint, self.checkpoint_tasks, trains=self.finetuning is not None
            )
            # A world model that was trained further may know what the policy that it is to go on with does not.
            unknown = {
                name: like
                for name, like in self.new_tasks.items()
                if name not in known.tasks or not self.initial_policy_checkpoint
            }
            require_data(self.new_tasks, source)
            if self.save_world_model == "reference":
                if unknown:
                    raise LitPWMError(
                        f"model.save_world_model is 'reference', and model.new_tasks lets the world model learn of "
                        f"{', '.join(unknown)}: no file holds the model that checkpoints would refer to. Let them hold "
                        f"it, with `--model.save_world_model full`."
                    )
                self._frozen = FrozenModel(self.world_model_checkpoint, fingerprint_of(known))
            return known, unknown
        if self.finetuning is None:
            raise LitPWMError(
                "PolicyLearning needs a world model, but world_model_checkpoint is not set. Give the checkpoint of "
                "a pre-training run: --model.world_model_checkpoint RUN/.../last.ckpt. Or train one from scratch with "
                "the policy: --config configs/joint.yaml, whose FinetuneSchedule opens it at update 0."
            )
        self.starts_fresh = True
        return fresh_world_model(self.world_model_options or WorldModelOptions(), source), {}

    def _objective_of_origin(self) -> Mapping[str, Any] | None:
        """What the world model's checkpoint says that it was trained by, where that is asked for."""
        if self.finetuning is None or self.objective is not None or not (path := self.world_model_checkpoint):
            return None
        return description_of(read_any(path, self.checkpoint_tasks), path).get("objective")

    def _build_described(self, description: Mapping[str, Any], path: str) -> None:
        with building(path):
            make_actor, make_critic = (
                factory_from(description["actor"], Actor),
                factory_from(description["critic"], CriticEnsemble),
            )
            world_model = described_world_model(description)
            self._build(world_model, tuple(description["trained_tasks"]), make_actor, make_critic)

    def _build(
        self,
        world_model: WorldModel,
        trained_tasks: tuple[str, ...],
        make_actor: Callable[..., Actor],
        make_critic: Callable[..., CriticEnsemble],
    ) -> None:
        # eval() and frozen weights come in `on_train_start`, after DistributedDataParallel has wrapped the module.
        self.world_model, self.trained_tasks = world_model, trained_tasks
        self.actor = make_actor(*_actor_dimensions(world_model))
        self.actor.set_action_mask(world_model.action_mask())
        self.averaged_actor = copy.deepcopy(self.actor)
        self.critic = make_critic(world_model.latent_dim, len(world_model.task_names))
        self.target_critic = copy.deepcopy(self.critic)
        groups = len(world_model.task_names) if self.returns_of_each_task else None
        self.return_stats = RunningStats(sums_dtype(self), groups)
        # Drawn from the run's seed and saved, so that the noise of update k is the same after resuming.
        self.register_buffer("noise_seed", torch.randint(2**31, ()))

    def parity(self) -> Parity | None:
        """How the actor's number of parameters compares with the reference's; None without a reference."""
        if self.makes.reference is None:
            return None
        return parity_of(self.actor, self.makes.reference, _actor_dimensions(self.world_model))

    def policy(self) -> Policy:
        """The policy as it is now, to act in environments with; shares its weights with this module.

        One that is trained in double precision acts in single precision, as its checkpoint will: then it is a copy.
        """
        policy = Policy(self.world_model, self.averaged_actor, self.trained_tasks)
        if self.world_model.obs_mean.dtype == torch.float32:
            return policy
        return copy.deepcopy(policy).float()


def _actor_dimensions(world_model: WorldModel) -> tuple[int, int, int]:
    return world_model.latent_dim, world_model.action_dim, len(world_model.task_names)
