"""PWM's actor and critics, by its keys: a squashed Gaussian MLP and an ensemble of stacked MLPs of the latent."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from lit_pwm.checkpoints.formats.base import part_of
from lit_pwm.checkpoints.formats.key_check import check_keys, shape_of
from lit_pwm.checkpoints.formats.key_map import KeyMap, KeyRow
from lit_pwm.errors import LitPWMError
from lit_pwm.models.actors import LOG_STD_FLOOR, MLPActor
from lit_pwm.models.critics import CriticEnsemble
from lit_pwm.models.named_classes import known_class

_KINDS = ("weight", "bias")
ACTOR, CRITIC = "actor.", "critic."


def actor_map(hidden: int) -> KeyMap:
    """Of an actor with so many hidden layers, each three modules (Linear, Mish, LayerNorm) before the last Linear."""
    return KeyMap(
        [
            KeyRow("logstd", "log_std.value"),
            KeyRow(f"mu_net.{3 * hidden}.", "mean."),
            KeyRow("mu_net.", "trunk."),
        ]
    )


def critic_map(hidden: int) -> dict[str, str]:
    """Numbered key → ours, of critics with so many hidden layers: weight, bias, then the norm's, of each in turn."""
    ours = [f"net.{3 * layer + part}.{kind}" for layer in range(hidden) for part in (0, 2) for kind in _KINDS]
    ours += [f"net.{3 * hidden}.{kind}" for kind in _KINDS]
    return {f"params.{number}": key for number, key in enumerate(ours)}


def kind_of_actor(weights: Mapping[Any, Any]) -> str | None:
    """What other actor than the MLP keys are of; None if they are the MLP's."""
    keys = [str(key) for key in weights]
    if any(key.startswith("velocity_net.") or key == "init_logstd" for key in keys):
        return "Flow-MBPO-PWM's flow actor (`velocity_net`), whose actions are another function than lit_pwm's flow"
    if any(key.startswith("mu_net.") or key == "logstd" for key in keys):
        return None
    shown = ", ".join(repr(key) for key in keys[:3])
    return f"an actor of another kind ({shown[:120]})" if keys else "an actor without weights"


@dataclass(frozen=True)
class ReadPolicy:
    """An actor and critics as a native checkpoint has them.

    Attributes:
        description: of `actor` and `critic`.
        state: their weights, those of the averaged actor and of the target critics too, which PWM does not have.
    """

    description: dict[str, Any]
    state: dict[str, Tensor]


def read_policy(
    actor: Mapping[Any, Any], critic: Mapping[Any, Any], model: Mapping[str, Any], path: str | Path, title: str
) -> ReadPolicy:
    """An actor and critics of PWM's.

    Args:
        actor: its weights by PWM's keys.
        critic: theirs.
        model: the description of the world model that they act on.
        path: where from, for errors.
        title: the format, for errors.

    Raises:
        LitPWMError: a key is missing, extra or misshapen.
    """
    latent, action, tasks = model["latent_dim"], model["action_dim"], len(model["tasks"])
    hidden = _hidden_widths(actor, r"mu_net\.(\d{1,3})\.weight")
    keys = actor_map(len(hidden))
    ours = MLPActor(latent, action, tasks, hidden_dims=hidden or (1,))
    shapes = {key: tuple(value.shape) for key, value in ours.state_dict().items() if key != "task_embedding.weight"}
    wanted = {f"{ACTOR}{keys.foreign(key)}": shape for key, shape in shapes.items()}
    check_keys({f"{ACTOR}{key}": value for key, value in actor.items()}, wanted, path, title)

    of_critics, number = _critic_widths(critic)
    critics = CriticEnsemble(latent, tasks, number, of_critics)
    numbered = critic_map(len(of_critics))
    fresh = critics.state_dict()
    theirs = {key: _stacked(our_key, fresh[our_key]) for key, our_key in numbered.items()}
    wanted = {f"{CRITIC}{key}": tuple(value.shape) for key, value in theirs.items()}
    check_keys({f"{CRITIC}{key}": value for key, value in critic.items()}, wanted, path, title)

    log_std = actor["logstd"]
    floor = min(LOG_STD_FLOOR, float(log_std.min()))  # a lower one of the file's is not raised by the first update
    description = {
        "actor": MLPActor(latent, action, tasks, hidden_dims=hidden, log_std_floor=floor).description(),
        "critic": critics.description(),
    }
    no_task = {"task_embedding.weight": log_std.new_zeros((tasks, 0))}
    own_actor = keys.to_native(actor, {}) | no_task
    own_critic = {our_key: _unstacked(critic[key]) for key, our_key in numbered.items()} | no_task
    state = {f"{prefix}.{key}": value for prefix in ("actor", "averaged_actor") for key, value in own_actor.items()}
    state |= {f"{prefix}.{key}": value for prefix in ("critic", "target_critic") for key, value in own_critic.items()}
    return ReadPolicy(description, state)


def write_policy(
    description: Mapping[str, Any], state: Mapping[str, Tensor], path: str | Path, title: str
) -> dict[str, dict[str, Tensor]]:
    """The way back of `read_policy`: `actor` and `critic` by PWM's keys. Of the actors, the averaged one is written.

    Raises:
        LitPWMError: they are of kinds that PWM does not have.
    """
    actor, critic = description["actor"], description["critic"]
    for name, part, kind in (("actor", actor, MLPActor), ("critics", critic, CriticEnsemble)):
        if known_class(part["class_path"]) is not kind:
            raise LitPWMError(
                f"The policy in the checkpoint {str(path)!r} has the {name} {part['class_path']!r}, and {title} can "
                f"hold no other than {kind.__name__}'s. Train a policy with that, or convert it --to native, which "
                f"holds any networks."
            )
        if (part.get("init_args") or {}).get("task_dim"):
            raise LitPWMError(
                f"The policy in the checkpoint {str(path)!r} has {name} that look at the task (task_dim "
                f"{part['init_args']['task_dim']}), and in {title} they see the latent alone. Train a policy with "
                f"task_dim 0, or convert it --to native, which holds any networks."
            )
    own = {key: value for key, value in part_of(state, "averaged_actor.").items() if key != "task_embedding.weight"}
    keys = actor_map(sum(key.startswith("trunk.") and key.endswith(".bias") for key in own) // 2)
    order = ["log_std.value", *(key for key in own if key != "log_std.value")]
    of_critics = part_of(state, CRITIC)
    numbered = critic_map((len(of_critics) - 2) // 4)
    return {
        "actor": keys.to_foreign({key: own[key] for key in order}, {}),
        "critic": {key: _stacked(our_key, of_critics[our_key]) for key, our_key in numbered.items()},
    }


def _hidden_widths(weights: Mapping[Any, Any], pattern: str) -> list[int]:
    """Rows of the layers under keys of a pattern, every third, but for the last layer."""
    rows: dict[int, int] = {}
    for key, value in weights.items():
        match, shape = re.fullmatch(pattern, str(key)), shape_of(value)
        if match and shape and shape[0] and len(shape) == 2 and int(match[1]) % 3 == 0:
            rows[int(match[1])] = shape[0]
    return [rows[number] for number in sorted(rows)][:-1]


def _critic_widths(weights: Mapping[Any, Any]) -> tuple[list[int], int]:
    """Hidden widths of stacked critics, and how many there are; what is odd about them the check of keys names."""
    hidden = max(0, len(weights) - 2) // 4
    shapes = [shape_of(weights.get(f"params.{4 * layer}")) for layer in range(hidden + 1)]
    whole = [shape for shape in shapes if shape is not None and len(shape) == 3 and all(shape)]
    widths = [shape[1] if shape is not None and len(shape) == 3 and shape[1] else 1 for shape in shapes[:-1]]
    return widths, whole[0][0] if whole else 1


def _unstacked(value: Tensor) -> Tensor:
    """[N, out, in] or [N, out] → [N, in, out] or [N, 1, out]."""
    return (value.transpose(1, 2) if value.ndim == 3 else value[:, None]).contiguous()


def _stacked(key: str, value: Tensor) -> Tensor:
    """The way back of `_unstacked`, of a tensor under our key: all are [N, in or 1, out], biases and norms with 1."""
    _, layer, kind = key.split(".")
    is_matrix = int(layer) % 3 == 0 and kind == "weight"
    return value.transpose(1, 2).contiguous() if is_matrix else value[:, 0].contiguous()
