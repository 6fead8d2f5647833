"""What a policy's module holds to train its world model: the schedule, the objective, and what the model was."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor

from lit_pwm.checkpoints.references import SaveWorldModel
from lit_pwm.errors import LitPWMError
from lit_pwm.losses import WorldModelObjective, objective_from
from lit_pwm.models.world_model import WorldModel
from lit_pwm.updates.finetuning import Finetuning, supplied
from lit_pwm.updates.world_model_steps import WorldModelSteps

VALUES_KEY = "world_model_values"
"""In a checkpoint: what the world model's last step found, which later rows of the log repeat until the next."""
_OWN = ("objective.", "pretrained.")
"""Where weights begin that only training needs."""


class FurtherTraining(LightningModule):
    """The part of policy learning that makes a world model ready to be trained.

    Attributes:
        objective: what trains the world model, and measures it in validation; None where nothing asks for one.
        finetuning: the schedule that a callback supplies; None where the model is frozen.
        pretrained: a frozen copy of the model as it was when the run began, where the schedule pulls towards it.
        world_model: the model.
        save_world_model: whether checkpoints hold it, or refer to a file of it.
    """

    objective: WorldModelObjective | None
    finetuning: Finetuning | None = None
    pretrained: WorldModel | None
    world_model: WorldModel
    save_world_model: SaveWorldModel
    model_steps: WorldModelSteps | None = None
    _attached: WorldModel | None = None
    _values: Mapping[str, float] | None = None

    def setup(self, stage: str) -> None:
        """Take the schedule from the callbacks; of no use outside of training."""
        self.finetuning = supplied(self.trainer) if stage == "fit" else None

    def make_trainable(self, described: Mapping[str, Any] | None, has_pretrained: bool) -> None:
        """Let there be all that the schedule needs, once the networks are built; nothing without a schedule.

        Args:
            described: the description of the objective that the world model's checkpoint names: it is the model's own,
                and taken where this run's options name none.
            has_pretrained: whether the model comes from somewhere, to which it can be pulled.

        Raises:
            LitPWMError: there is a pull, and nothing to be pulled to.
        """
        if self.finetuning is None:
            return
        if self.save_world_model == "reference":
            raise LitPWMError(
                "save_world_model is 'reference', with which checkpoints refer to the file of a frozen world model, "
                "and FinetuneSchedule opens parts of it, which no file holds then. Give --model.save_world_model "
                "full, or remove the callback from trainer.callbacks."
            )
        if self.objective is None:
            self.objective = objective_from(described or WorldModelObjective)
        if self._attached is not self.world_model:
            with torch.random.fork_rng(devices=[]):
                self.objective.attach(self.world_model)
            object.__setattr__(self, "_attached", self.world_model)  # another name for it, and no part of its own
        if self.finetuning.pull is not None:
            if not has_pretrained:
                raise LitPWMError(
                    f"FinetuneSchedule has a pull, {type(self.finetuning.pull).__name__}, towards the pre-trained "
                    f"model, and this run starts from fresh weights. Leave `pull` out, or give "
                    f"model.world_model_checkpoint."
                )
            self.pretrained = copy.deepcopy(self.world_model)

    # -- checkpoints ------------------------------------------------------------------------------------------------
    def save_values(self, checkpoint: dict[str, Any]) -> None:
        """Keep what the log repeats."""
        if self.model_steps is not None and self.model_steps.values:
            checkpoint[VALUES_KEY] = {name: float(value) for name, value in self.model_steps.values.items()}

    def take_values(self) -> dict[str, Tensor]:
        """What was kept, once."""
        kept, self._values = self._values or {}, None
        return {name: torch.tensor(value, device=self.device) for name, value in kept.items()}

    def reconcile(self, checkpoint: dict[str, Any], described: Mapping[str, Any] | None, path: str) -> None:
        """Make sure that what only training needs is there where training goes on; what nobody needs is left out.

        Raises:
            LitPWMError: the run in the checkpoint trained its world model by another objective, or has not kept what
                this run's objective or pull needs.
        """
        state, own = checkpoint["state_dict"], self.state_dict()
        self._values = checkpoint.get(VALUES_KEY)
        checkpoint["state_dict"] = {
            key: value for key, value in state.items() if key in own or not key.startswith(_OWN)
        }
        if self.finetuning is None or self.objective is None:
            return
        theirs, ours = (described or {}).get("class_path"), self.objective.description()["class_path"]
        if theirs not in (None, ours):
            raise LitPWMError(
                f"The run in the checkpoint {path!r} trains its world model by the objective {theirs}, and this run's "
                f"is {ours}. Resume with `--model.objective {theirs}` and its options, or start a run from its "
                f"weights: give it as model.world_model_checkpoint and model.initial_policy_checkpoint."
            )
        if missing := [key for key in own if key.startswith(_OWN) and key not in state]:
            what = "model that FinetuneSchedule's pull goes to" if missing[0].startswith(_OWN[1]) else "objective"
            raise LitPWMError(
                f"The checkpoint {path!r} does not hold the {what} of this run (its {missing[0]!r} for one): it was "
                f"written by a run without. Resume with the options of that run, or start one from its weights: give "
                f"it as model.world_model_checkpoint and model.initial_policy_checkpoint."
            )
