"""Policy learning by first-order gradients through a world model (PWM, arXiv 2407.02466), as a LightningModule."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any, cast

from torch.optim.lr_scheduler import LambdaLR
from torchmetrics import MeanMetric

from lit_pwm.batch import Batch
from lit_pwm.checkpoints.references import SaveWorldModel
from lit_pwm.discounting import ContinuationDiscount, Discounting
from lit_pwm.imagination import imagine
from lit_pwm.losses import WorldModelObjective, objective_from
from lit_pwm.models.actor_parity import ActorParity
from lit_pwm.models.actors import Actor, MLPActor
from lit_pwm.models.component import described, factory_from
from lit_pwm.models.critics import CriticEnsemble
from lit_pwm.models.noise import seed_noise
from lit_pwm.models.world_model_options import WorldModelOptions
from lit_pwm.optim import logs_now
from lit_pwm.options import Count, File, Fraction, check_options
from lit_pwm.options.objects import group_of
from lit_pwm.options.optimizers import WorldModelOptimizer
from lit_pwm.options.policy_optimizers import ActorOptimizer, CriticOptimizer
from lit_pwm.options.renamed import AcceptsOldSpellings
from lit_pwm.options.return_units import ReturnOptions
from lit_pwm.paths import located
from lit_pwm.updates.draws import stream_seed
from lit_pwm.updates.from_checkpoint import plain, require_file_of_tasks
from lit_pwm.updates.minibatches import require_dealable
from lit_pwm.updates.new_tasks import check_new_tasks
from lit_pwm.updates.optimized_part import count_update, rates_of
from lit_pwm.updates.policy_makers import PolicyMakers
from lit_pwm.updates.policy_update import PolicyUpdate
from lit_pwm.updates.world_model_steps import WorldModelSteps

_KEPT_PLAIN = ("world_model_optimizer", "returns", "actor_parity", "world_model", "objective", "discounting")
_ACTOR_OPTIMIZER, _CRITIC_OPTIMIZER = ActorOptimizer(), CriticOptimizer()
_WORLD_MODEL_OPTIMIZER, _RETURNS, _ACTOR_PARITY = WorldModelOptimizer(), ReturnOptions(), ActorParity()


class PolicyLearning(PolicyUpdate, metaclass=AcceptsOldSpellings):
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
        discounting: what the policy believes of ends: `lit_pwm.discounting.ContinuationDiscount`, γ c_t where the world
            model has a continuation head, or its control `ConstantDiscount`, γ whatever the model says.
        returns: in which units rewards are trained on, and what returns are divided by.
        actor_optimizer: how the actor steps, whether gradients go through its input, and how its average follows.
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
        discounting: Callable[[], Discounting] = ContinuationDiscount,
        returns: ReturnOptions = _RETURNS,
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
        self.discounting = factory_from(discounting, Discounting)()
        self.keep_plain(
            world_model_optimizer=asdict(self.world_model_optimizer),
            returns=asdict(self.returns),
            actor_parity=parity.plain(),
            world_model=None if self.world_model_options is None else self.world_model_options.plain(),
            objective=None if self.objective is None else self.objective.description(),
            discounting=described(self.discounting),
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
        self.returns_of_each_task = self.returns.scale == "task"
        self._imagined_reward = MeanMetric(nan_strategy="disable")

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

    def on_validation_epoch_start(self) -> None:
        """World models that sample draw the same in each validation, so that losses can be compared."""
        seed_noise(self.world_model, self.global_rank)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """What the deterministic policy earns in imagination from held-out observations."""
        task = batch["task"]
        z = self.world_model.encode(batch["obs"][0], task)
        noise = self.validation_noise(batch_idx, len(task))
        rollout = imagine(
            self.world_model, self.averaged_actor, z, task, noise["actor"], "raw", deterministic=True,
            dynamics_noise=noise.get("dynamics"), discounting=self.discounting,
        )  # fmt: skip
        if rollout.survival is None:
            self.log("val/imagined_reward", rollout.rewards.mean(), batch_size=len(task), sync_dist=True)
        else:
            self._imagined_reward.update(rollout.rewards, rollout.survival[:-1])
            self.log("val/imagined_reward", self._imagined_reward, batch_size=len(task))
        if self.objective is not None:
            loss = self.objective(self.world_model, batch)["total"]
            self.log("val/world_model_loss", loss, batch_size=len(task), sync_dist=True)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """As validation."""
        self.validation_step(batch, batch_idx)
