"""Which parts of a world model are open while a policy learns on it, and their rates: functions of the update."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast, runtime_checkable

from lightning.pytorch import Trainer
from lightning.pytorch.utilities.rank_zero import rank_zero_info

from lit_pwm.errors import LitPWMError, did_you_mean
from lit_pwm.optim import warmup_cosine
from lit_pwm.options.optimizers import WorldModelOptimizer
from lit_pwm.options.part_opening import Opening
from lit_pwm.pulls import Pull

OTHERS = "all"
"""Stands for every part that a schedule does not name."""


@dataclass(frozen=True)
class Finetuning:
    """A schedule, before the world model is known that it is for.

    Attributes:
        parts: name of a part, or `all` for those that are not named → its opening.
        pull: what keeps the model near the pre-trained one; None for nothing.
    """

    parts: Mapping[str, Opening]
    pull: Pull | None = None


@runtime_checkable
class SuppliesFinetuning(Protocol):
    """A callback that supplies a schedule, such as `callbacks.FinetuneSchedule`."""

    finetuning: Finetuning


def supplied(trainer: Trainer) -> Finetuning | None:
    """The schedule that a Trainer's callbacks supply; None if none does.

    Raises:
        LitPWMError: two of them do.
    """
    callbacks = cast("Any", trainer).callbacks
    found = [callback.finetuning for callback in callbacks if isinstance(callback, SuppliesFinetuning)]
    if len(found) > 1:
        raise LitPWMError(
            f"trainer.callbacks holds {len(found)} schedules of fine-tuning, and a run has one. Name all parts in the "
            f"`parts` of one FinetuneSchedule, and remove the others."
        )
    return found[0] if found else None


class Plan:
    """Openings of a world model's parts and their learning rates, as functions of the update alone.

    Args:
        finetuning: the schedule; None where the model is frozen.
        groups: the optimizer's groups, with their names, parameters and learning rates.
        settings: of the optimizer, for what the schedule leaves open.
        total: updates of the run, at which rates that decay have decayed.

    Attributes:
        openings: name of a part → its opening, of those that are to open.

    Raises:
        LitPWMError: a part that is named is not there, or has nothing to train.
    """

    def __init__(
        self,
        finetuning: Finetuning | None,
        groups: Sequence[Mapping[str, Any]],
        settings: WorldModelOptimizer,
        total: int,
    ) -> None:
        self._settings, self._total = settings, total
        self._rates = {group["name"]: float(group["lr"]) for group in groups}
        self.openings: dict[str, Opening] = {}
        if finetuning is not None:
            trained = [group["name"] for group in groups if any(p.numel() for p in group["params"])]
            _require_parts(finetuning.parts, list(self._rates), trained)
            given = {name: finetuning.parts.get(name, finetuning.parts.get(OTHERS)) for name in trained}
            self.openings = {name: opening for name, opening in given.items() if opening is not None}
            self._require_some_opening()

    def _require_some_opening(self) -> None:
        late = {name: opening.update for name, opening in self.openings.items() if opening.update >= self._total}
        said = ", ".join(f"{name} at update {update}" for name, update in late.items())
        if len(late) == len(self.openings):
            raise LitPWMError(
                f"FinetuneSchedule opens nothing in this run of {self._total} updates ({said}): the world model would "
                f"stay frozen. Open a part earlier, raise trainer.max_steps, or remove the callback from "
                f"trainer.callbacks to train the policy on the frozen model."
            )
        if late:
            rank_zero_info(f"FinetuneSchedule: this run ends after {self._total} updates, before it opens {said}.")

    def open_at(self, update: int) -> frozenset[str]:
        """The parts that an update trains."""
        return frozenset(name for name, opening in self.openings.items() if opening.update <= update)

    def rates_at(self, update: int) -> dict[str, float]:
        """The learning rate of each group in an update; 0 where it is closed."""
        return {name: self._rate(name, update) for name in self._rates}

    def _rate(self, name: str, update: int) -> float:
        opening, settings = self.openings.get(name), self._settings
        if opening is None or update < opening.update:
            return 0.0
        warmup = settings.warmup_steps if opening.warmup_steps is None else opening.warmup_steps
        factor = warmup_cosine(max(1, self._total - opening.update), warmup, settings.final_lr_fraction)
        return (self._rates[name] if opening.lr is None else opening.lr) * factor(update - opening.update)


def _require_parts(parts: Mapping[str, Opening], known: list[str], trained: list[str]) -> None:
    for name in parts:
        if name not in (*known, OTHERS):
            raise LitPWMError(
                f"FinetuneSchedule has a part {name!r}, which the world model does not have. "
                f"{did_you_mean(name, [*known, OTHERS])} `{OTHERS}` stands for those that are not named."
            )
        if name in known and name not in trained:
            raise LitPWMError(
                f"FinetuneSchedule opens {name!r}, of which this world model has no parameters. It has "
                f"{', '.join(trained)}; leave {name!r} out."
            )


def require_all_open(plan: Plan, groups: Sequence[Mapping[str, Any]]) -> None:
    """See that a world model with fresh weights is trained as a whole from the first update on.

    Raises:
        LitPWMError: a part of it would keep the weights that chance gave it.
    """
    trained = [group["name"] for group in groups if any(p.numel() for p in group["params"])]
    if closed := [name for name in trained if name not in plan.open_at(0)]:
        raise LitPWMError(
            f"Without model.world_model_checkpoint the world model starts from fresh weights, and {', '.join(closed)} "
            f"would stay random at update 0. Open all parts at update 0 (`parts: {{{OTHERS}: {{update: 0}}}}` of "
            f"FinetuneSchedule, as configs/joint.yaml does), or give the checkpoint of a pre-training run."
        )
