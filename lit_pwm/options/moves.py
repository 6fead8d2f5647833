"""What has moved among the options of classes: the one table that `lit_pwm.options.renamed` reads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lit_pwm.errors import LitPWMError
from lit_pwm.options import moved_flows

Options = dict[str, Any]


@dataclass(frozen=True)
class Moved:
    """Old options of a class, and what takes their place.

    Attributes:
        old: their names.
        renew: the old options that were given, by name → the new ones, by dotted path. A path says `init_args` where a
            config does, and ends in `class_path` where a class is named. It may refuse values with a `LitPWMError`.
        shown: how the new spelling is shown, or what shows the new options; empty where nothing is to be written in
            their place.
        is_old: of an option (name, value) that the class still has under this name, whether its value is of the old
            kind; by default none is.
    """

    old: tuple[str, ...]
    renew: Callable[[Options], Options]
    shown: str | Callable[[Options], str] = ""
    is_old: Callable[[str, Any], bool] = lambda name, value: False


def moved(old: str, new: str, class_path: str = "") -> Moved:
    """An option that has another name or place, with the same values.

    Args:
        old: its name.
        new: its dotted path.
        class_path: the class whose `init_args` the path goes through, where none is named beside.
    """
    named = {f"{new.partition('.init_args')[0]}.class_path": class_path} if class_path else {}
    return Moved((old,), lambda given: named | {new: given[old]}, new.replace(".init_args", ""))


def moved_to_both(old: str, first: str, second: str) -> Moved:
    """An option that two others have taken the place of, both with its values."""
    return Moved((old,), lambda given: {first: given[old], second: given[old]}, f"{first} and {second}")


def gone(old: str, neutral: object, advice: str) -> Moved:
    """An option that is no more, and of which only the value that changed nothing is still accepted.

    Args:
        old: its name.
        neutral: that value.
        advice: what to do instead, a sentence.
    """

    def renew(given: Options) -> Options:
        if given[old] != neutral:
            raise LitPWMError(f"The option {old!r}, given as {given[old]!r}, is no more. {advice}")
        return {}

    return Moved((old,), renew)


ENCODER = "lit_pwm.models.MLPEncoder"
REWARD = "lit_pwm.models.TwoHotReward"
OBJECTIVE = "lit_pwm.losses.WorldModelObjective"
STEADIED = "benchmarks.encoder_steadying.SteadiedObjective"
_STEADYING = (
    f"It lost in the study of flow dynamics and lives with it: in the checkout, give model.objective as {STEADIED}, "
    f"which has this option, or leave it out."
)

_SOLVER = Moved(moved_flows.SOLVER_OPTIONS, moved_flows.solver, moved_flows.shown)

MOVED: dict[str, tuple[Moved, ...]] = {
    "lit_pwm.models.flow_dynamics.FlowDynamics": (
        _SOLVER,
        Moved(
            moved_flows.SOURCE_OPTIONS,
            moved_flows.source,
            moved_flows.shown,
            is_old=lambda name, value: name == "source" and isinstance(value, str) and value in moved_flows.SOURCES,
        ),
        Moved(moved_flows.LOSS_OPTIONS, moved_flows.loss, moved_flows.shown),
    ),
    "lit_pwm.models.flow_actor.FlowActor": (_SOLVER,),
    "lit_pwm.models.world_model.WorldModel": (
        moved("encoder_dim", "encoder.init_args.hidden_dim", ENCODER),
        moved("encoder_layers", "encoder.init_args.layers", ENCODER),
        moved("reward_dim", "reward.init_args.hidden_dim", REWARD),
        moved("num_bins", "reward.init_args.num_bins", REWARD),
    ),
    "lit_pwm.pretraining.WorldModelPretraining": (
        *(
            moved(name, f"world_model.{name}")
            for name in ("dynamics", "latent_dim", "task_dim", "parameter_reference", "parameter_tolerance")
        ),
        moved("encoder_dim", "world_model.encoder.init_args.hidden_dim", ENCODER),
        moved("encoder_layers", "world_model.encoder.init_args.layers", ENCODER),
        moved("reward_dim", "world_model.reward.init_args.hidden_dim", REWARD),
        moved("rho", "objective.init_args.rho", OBJECTIVE),
        moved("consistency_coef", "objective.init_args.consistency_coef", OBJECTIVE),
        moved("reward_coef", "objective.init_args.coefficients.reward", OBJECTIVE),
        *(
            moved(name, f"optimizer.{name}")
            for name in (
                "lr", "encoder_lr_scale", "betas", "weight_decay", "clip_norm", "warmup_steps", "final_lr_fraction",
            )
        ),
        gone("target_encoder_rate", 1.0, _STEADYING),
        gone("sigreg_coef", 0.0, _STEADYING),
    ),
    "lit_pwm.policy_learning.PolicyLearning": (
        moved("actor_lr", "actor_optimizer.lr"),
        moved("actor_clip_norm", "actor_optimizer.clip_norm"),
        moved("actor_average_rate", "actor_optimizer.average_rate"),
        moved("detach_actor_input", "actor_optimizer.detach_input"),
        moved("critic_lr", "critic_optimizer.lr"),
        moved("critic_clip_norm", "critic_optimizer.clip_norm"),
        moved("critic_passes", "critic_optimizer.passes"),
        moved("critic_minibatches", "critic_optimizer.minibatches"),
        moved("target_rate", "critic_optimizer.target_rate"),
        moved_to_both("final_lr", "actor_optimizer.final_lr", "critic_optimizer.final_lr"),
        moved_to_both("betas", "actor_optimizer.betas", "critic_optimizer.betas"),
        moved("reward_space", "returns.reward_space"),
        moved("reward_scale", "returns.reward_scale"),
        moved("return_scale", "returns.scale"),
        moved("actor_reference", "actor_parity.reference"),
        moved("parameter_tolerance", "actor_parity.tolerance"),
    ),
}  # fmt: skip
"""Class, as its module and name → the rows of what has moved. Classes that derive from it inherit them."""
