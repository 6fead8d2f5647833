"""When which part of the world model is trained while a policy learns on it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from lightning.pytorch import Callback, LightningModule, Trainer

from lit_pwm.errors import LitPWMError
from lit_pwm.models.component import factory_from
from lit_pwm.options import checked
from lit_pwm.options.objects import group_of
from lit_pwm.options.part_opening import Opening
from lit_pwm.policy_learning import PolicyLearning
from lit_pwm.pulls import Pull
from lit_pwm.updates.finetuning import OTHERS, Finetuning


class FinetuneSchedule(Callback):
    """Opens parts of the world model while a policy learns on it; `PolicyLearning` trains them (docs/finetuning.md).

    Parts are `encoder`, `dynamics`, `task_embedding`, and each head by its name, such as `reward`; `all` stands for
    those that are not named. An open part is trained by the world model's own objective on the data's second stream
    (`data.second`, whose `every` says in which updates): its steps come before the actor's and the critics' in the same
    update. Openings, rates and warm-up count policy updates, and an opening resets nothing. With all parts open at
    update 0 and no checkpoint this is joint training from scratch (configs/joint.yaml).

    It only supplies the schedule: which parts are open is a function of it and of the update, so that nothing of it is
    in checkpoints. Hooks: `setup` (checks).

    Args:
        parts: name of a part → its opening: `update`, `lr`, `warmup_steps`; all at update 0 if not given.
        pull: keeps the open parts near the pre-trained model: `lit_pwm.pulls.L2Pull` or
            `lit_pwm.pulls.DistillationPull`. The run then holds a frozen copy of it.

    Raises:
        LitPWMError: no parts; in `setup`, another module than `PolicyLearning`, or data without a second stream. A part
            that the world model does not have is refused when the run has built it.
    """

    @checked
    def __init__(
        self, parts: dict[str, Opening] | None = None, pull: Callable[[], Pull] | Mapping[str, object] | None = None
    ) -> None:
        if parts is None:
            parts = {OTHERS: Opening()}
        if not parts:
            raise LitPWMError(
                "FinetuneSchedule has no parts, with which the world model stays frozen. Name what is to be trained "
                "(encoder, dynamics, reward, task_embedding, or all), or remove the callback from trainer.callbacks."
            )
        for name, given in parts.items():
            if not (given is None or isinstance(given, (Opening, Mapping))):
                raise LitPWMError(
                    f"FinetuneSchedule has parts.{name} {given!r:.80}, where an opening is expected: a mapping with "
                    f"`update`, and if wanted `lr` and `warmup_steps`, such as {{{name}: {{update: 0}}}}."
                )
        openings = {
            name: group_of(Opening, Opening() if given is None else given, f"parts.{name}")
            for name, given in parts.items()
        }
        self.finetuning = Finetuning(openings, None if pull is None else factory_from(pull, Pull)())

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Check that there is what it needs."""
        if not isinstance(pl_module, PolicyLearning):
            raise LitPWMError(
                f"FinetuneSchedule opens parts of the world model of a PolicyLearning, but the Trainer runs a "
                f"{type(pl_module).__name__}. Remove the callback from trainer.callbacks."
            )
        if stage == "fit" and getattr(getattr(trainer, "datamodule", None), "second", None) is None:
            raise LitPWMError(
                "FinetuneSchedule trains the world model on the data's second stream, but the data has none "
                "(data.second is null). Give it with the world model's own horizon and batch size, for example "
                '--data.second "{horizon: 16, batch_size: 256}", or remove the callback to leave the model frozen.'
            )
