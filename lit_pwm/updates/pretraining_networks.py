"""The networks of pre-training: built from the data's dimensions, or from the checkpoint that a run goes on from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from lit_pwm.batch import DataSource
from lit_pwm.checkpoints.migration import PROVENANCE_KEY
from lit_pwm.checkpoints.native import (
    DESCRIPTION_KEY,
    building,
    describe_world_model,
    described_world_model,
    description_of,
    initial_world_model,
)
from lit_pwm.checkpoints.networks import check_same_networks, description_of_unbuilt
from lit_pwm.errors import LitPWMError
from lit_pwm.losses import WorldModelObjective
from lit_pwm.measures.open_loop import OpenLoopError
from lit_pwm.models.parity import Parity
from lit_pwm.models.world_model import WorldModel
from lit_pwm.models.world_model_options import WorldModelOptions
from lit_pwm.options.optimizers import WorldModelOptimizer
from lit_pwm.tasks.registry import TASK_SETS, task_spec
from lit_pwm.updates.binding import bind, source_of, standardise
from lit_pwm.updates.from_checkpoint import BuiltFromCheckpoint, arrange_by_group
from lit_pwm.updates.new_tasks import with_new_tasks
from lit_pwm.updates.precision import require_supported_precision, sums_dtype


class PretrainingNetworks(BuiltFromCheckpoint):
    """The part of pre-training that holds the networks; a subclass sets the attributes below in its constructor.

    Attributes:
        world_model_options: what the world model is made of.
        objective: what it is trained by.
        optimizer_settings: how it steps.
        task_set: whose tasks it is built for; None for the data's own.
        initial_checkpoint: the file that a fresh run takes its world model from, if any.
        standardise_observations: whether a fresh model scales observations by statistics of the data.
        open_loop_steps: numbers of open-loop steps after which errors are measured.
        checkpoint_tasks: names of the tasks in that file, where it does not say them.
        new_tasks: tasks that its world model has never seen, each with the known one that it starts as.
    """

    world_model_options: WorldModelOptions
    objective: WorldModelObjective
    optimizer_settings: WorldModelOptimizer
    task_set: str | None
    initial_checkpoint: str | None
    standardise_observations: bool
    open_loop_steps: tuple[int, ...]
    checkpoint_tasks: list[str] | None
    new_tasks: dict[str, str]

    world_model: WorldModel
    open_loop: OpenLoopError
    noise_seed: Tensor

    # -- building ---------------------------------------------------------------------------------------------------
    @property
    def is_built(self) -> bool:
        """Whether the networks exist yet."""
        return "world_model" in self._modules

    def configure_model(self) -> None:
        """Build the networks from the data's dimensions if there are none yet, and bind the data to them.

        Lightning calls this in every run, before the optimizers exist and before a checkpoint is restored, from which
        they are built if there is one (`on_load_checkpoint`).
        """
        if self._trainer is None:
            return
        require_supported_precision(self)
        source, fresh = source_of(self), not self.is_built
        if fresh and self.checkpoint_to_restore is not None:
            return
        if fresh and self.initial_checkpoint:
            known = self._initial_world_model(self.initial_checkpoint)
            self._build(with_new_tasks(known, self.new_tasks, source))
        elif fresh:
            with torch.device("cpu"):  # a seed gives the same weights wherever they are trained
                self._build(self.world_model_options.build(self._tasks(source), continuation=source.has_terminations))
        # Before the statistics, because this is what refuses tasks that the model does not know.
        bind(source, self.world_model)
        if fresh and self.standardise_observations and not self.initial_checkpoint:
            standardise(source, self.world_model, source.tasks)

    def _initial_world_model(self, path: str) -> WorldModel:
        world_model = initial_world_model(path, self.checkpoint_tasks)
        if self.task_set is not None and set(world_model.task_names) != set(TASK_SETS[self.task_set]):
            raise LitPWMError(
                f"model.task_set is {self.task_set!r}, but the world model in model.initial_checkpoint {path!r}, which "
                f"brings its own tasks, knows {', '.join(world_model.task_names)}. Leave model.task_set out."
            )
        return world_model

    def parity(self) -> Parity | None:
        """How the dynamics' number of parameters compares with the reference's; None without a reference."""
        return self.world_model_options.parity(self.world_model)

    def _tasks(self, source: DataSource) -> dict[str, tuple[int, int]]:
        if self.task_set is None:
            return source.tasks
        specs = [task_spec(name) for name in TASK_SETS[self.task_set]]
        return {spec.name: (spec.obs_dim, spec.action_dim) for spec in specs}

    def _build(self, world_model: WorldModel) -> None:
        self.world_model = world_model
        self.open_loop = OpenLoopError(
            world_model.task_names, world_model.latent_dim, self.open_loop_steps, sums_dtype(self)
        )
        self.objective.attach(world_model)
        # A function of the run's seed, and saved, so that the noise of update k is the same after resuming. The global
        # generator is left as it was.
        with torch.random.fork_rng(devices=[]):
            self.register_buffer("noise_seed", torch.randint(2**31, ()))

    # -- checkpoints ------------------------------------------------------------------------------------------------
    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Describe the networks beside their weights."""
        checkpoint[DESCRIPTION_KEY] = describe_world_model(self.world_model, self.objective)
        checkpoint[PROVENANCE_KEY] = self.provenance()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Build the networks that the checkpoint holds, in its order of tasks, or refuse one of other networks."""
        path = self.restored_path
        description = description_of(checkpoint, path)
        with building(path):
            found = described_world_model(description)
        if (ours := self._own_networks(found, checkpoint)) is not None:
            check_same_networks({"world_model": ours}, {"world_model": found.description()}, path)
        if not self.is_built or not self.world_model.numbers_tasks_like(found.description()):
            self._build(found)
        self._take_training(checkpoint, description, path)
        if self._trainer is not None:
            bind(source_of(self), self.world_model)

    def _own_networks(self, found: WorldModel, checkpoint: Mapping[str, Any]) -> dict[str, Any] | None:
        """What this run's own options describe; None where they began with the world model of another checkpoint."""
        theirs = found.description()
        origin = checkpoint.get("hyper_parameters", {}).get("initial_checkpoint")
        if origin and not self.initial_checkpoint:
            self.initial_checkpoint = self.hparams["initial_checkpoint"] = origin  # for who resumes from this run
        if self.is_built:
            ours = self.world_model.description()
        elif self.initial_checkpoint or self._trainer is None:
            return None
        else:
            widths = (found.tasks, found.obs_dim, found.action_dim)
            if self.task_set is not None:
                widths = (self._tasks(source_of(self)), None, None)
            # The data of the checkpoint's run decided, and `bind` says what this run's asks for.
            knows_ends = found.continuation_head is not None
            ours = description_of_unbuilt(lambda: self.world_model_options.build(*widths, continuation=knows_ends))
        if self.task_set is None and not self.initial_checkpoint:  # tasks and widths were those of this run's data
            ours |= {key: theirs[key] for key in ("tasks", "obs_dim", "action_dim")}
        return ours

    def _take_training(self, checkpoint: dict[str, Any], description: Mapping[str, Any], path: str) -> None:
        """Make sure that the objective is the checkpoint's where training goes on; elsewhere leave its state out."""
        theirs, ours = description.get("objective", {}).get("class_path"), self.objective.description()["class_path"]
        if not self.is_resumed:
            state = self.state_dict()
            kept = {k: v for k, v in checkpoint["state_dict"].items() if not k.startswith("objective.") or k in state}
            checkpoint["state_dict"] = kept
            return
        if theirs not in (None, ours):
            raise LitPWMError(
                f"The training run in the checkpoint {path!r} descends on the objective {theirs}, and this run's is "
                f"{ours}. Resume with `--model.objective {theirs}` and its options"
                f"{', which need the checkout of lit_pwm' if theirs.startswith('benchmarks') else ''}, or start a run "
                f"from its weights: give it as model.initial_checkpoint instead of ckpt_path."
            )
        groups = self.objective.parameter_groups(self.world_model, self.optimizer_settings)
        arrange_by_group(checkpoint, [[(group["name"], len(group["params"])) for group in groups]], path)
