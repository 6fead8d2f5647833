"""Checkpoints of policy learning: they describe its networks, and a run goes on with those that it finds in one."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from lightning.pytorch.utilities.rank_zero import rank_zero_info
from torch import Tensor

from lit_pwm.batch import DataSource
from lit_pwm.checkpoints.migration import PROVENANCE_KEY
from lit_pwm.checkpoints.native import DESCRIPTION_KEY, building, describe_policy, description_of, load_world_model
from lit_pwm.checkpoints.networks import check_same_networks, completed, description_of_unbuilt
from lit_pwm.checkpoints.references import reference_in
from lit_pwm.errors import LitPWMError
from lit_pwm.runtime.supplied import supplied
from lit_pwm.updates.binding import bind, source_of
from lit_pwm.updates.frozen_model import FrozenModel
from lit_pwm.updates.policy_networks import PolicyNetworks


class PolicyCheckpoints(PolicyNetworks):
    """The part of policy learning that writes its networks into checkpoints, and builds them from those it resumes."""

    def on_save_checkpoint(self, checkpoint: dict[str, object]) -> None:
        """Describe the networks beside their weights; the world model is part of the checkpoint, or referred to."""
        checkpoint[DESCRIPTION_KEY] = description = self._description()
        checkpoint[PROVENANCE_KEY] = self.provenance()
        self.save_values(checkpoint)
        if self.save_world_model == "reference":
            self.check_reference().leave_out(checkpoint, description)

    def check_reference(self) -> FrozenModel:
        """See that the world model is the one in the file that checkpoints without it refer to.

        Raises:
            LitPWMError: it is not.
        """
        if self._frozen is None:
            self._frozen = FrozenModel(supplied() or self.world_model_checkpoint)
        self._frozen.check(self.world_model, partial(load_world_model, tasks=self.world_model.task_names))
        return self._frozen

    def _description(self) -> dict[str, object]:
        return describe_policy(self.world_model, self.actor, self.critic, self.trained_tasks, self.objective)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Build the networks that the checkpoint holds, in its order of tasks, or refuse one of other networks."""
        path = self.restored_path
        description = description_of(checkpoint, path)
        if description["kind"] != "policy":
            raise LitPWMError(
                f"The checkpoint {path!r} holds a {description['kind']}, and policy learning resumes from its own "
                f"checkpoints. To start a policy on a world model, give it as model.world_model_checkpoint."
            )
        with building(path):
            theirs = completed(description)
        ours = self._own_networks(theirs)
        check_same_networks(ours, {name: theirs[name] for name in ours}, path)
        if not self.is_built or not self.world_model.numbers_tasks_like(theirs["world_model"]):
            self._build_described(description, path)
        self.trained_tasks = tuple(description["trained_tasks"])
        if (reference := reference_in(description, path)) is not None:
            self._frozen = FrozenModel(supplied() or reference[1], reference[0])
        self._require_same_statistics(checkpoint, path)
        self.make_trainable(description.get("objective"), True)
        self.reconcile(checkpoint, description.get("objective"), path)
        if self._trainer is not None:
            source = source_of(self)
            bind(source, self.world_model)
            self._require_trained_tasks(source, path)

    def _own_networks(self, theirs: Mapping[str, Any]) -> dict[str, Any]:
        """What this run's options describe of the networks in a checkpoint, by part."""
        if self.is_built:
            return {name: self._description()[name] for name in ("world_model", "actor", "critic")}
        if self._trainer is None:  # networks are the checkpoint's, whatever the options
            return {}
        model = theirs["world_model"]
        latent, action, tasks = model["latent_dim"], model["action_dim"], len(model["tasks"])
        return self._asked_for(model) | {
            "actor": description_of_unbuilt(lambda: self.makes.matched_actor(latent, action, tasks)),
            "critic": description_of_unbuilt(lambda: self.makes.critic(latent, tasks)),
        }

    def _asked_for(self, model: Mapping[str, Any]) -> dict[str, Any]:
        """The world model that this run's options describe for the tasks of another one, as its checkpoint's part."""
        if (options := self.world_model_options) is None:
            return {}
        build = partial(options.build, model["tasks"], model["obs_dim"], model["action_dim"])
        return {"world_model": description_of_unbuilt(build)}

    def _require_same_statistics(self, checkpoint: Mapping[str, Any], path: str) -> None:
        mean = checkpoint["state_dict"].get("return_stats.mean")
        if isinstance(mean, Tensor) and mean.shape != self.return_stats.mean.shape:
            there, here = ("task", "shared") if mean.ndim else ("shared", "task")
            raise LitPWMError(
                f"The policy in the checkpoint {path!r} was trained with returns.scale {there!r}, and this run has "
                f"{here!r}, whose statistics of returns are others. Resume with --model.returns.scale {there}, or "
                f"start a run from its weights: give it as model.initial_policy_checkpoint instead of ckpt_path."
            )

    def _require_trained_tasks(self, source: DataSource, path: str) -> None:
        new = [name for name in source.tasks if name not in self.trained_tasks]
        if new and not self.is_resumed:
            rank_zero_info(f"The policy was trained for {', '.join(self.trained_tasks)}, and not for {', '.join(new)}.")
        elif new:
            raise LitPWMError(
                f"The policy in the checkpoint {path!r} was trained for {', '.join(self.trained_tasks)}, and the data "
                f"also holds {', '.join(new)}. Choose tasks of the policy with data.tasks, or start a run for all of "
                f"them from it: give it as model.initial_policy_checkpoint instead of ckpt_path."
            )
