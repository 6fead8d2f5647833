"""The description that our checkpoints hold of their networks: plain values from which these are rebuilt."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from lit_pwm.checkpoints.migration import DESCRIPTION_KEY, FORMAT_VERSION, migrate
from lit_pwm.errors import LitPWMError
from lit_pwm.models.actors import Actor
from lit_pwm.models.component import Component
from lit_pwm.models.world_model import WorldModel

TASK_SPECS = "task_specs"
"""In a description: task name → its spec as stores hold it (`lit_pwm.tasks.stored_specs`), of those that are known."""
_PARTS = {"world model": ("world_model",), "policy": ("world_model", "actor", "critic")}
"""Kind of checkpoint → the networks that it describes."""


def describe_world_model(world_model: WorldModel, objective: Component | None = None) -> dict[str, Any]:
    """The description that a checkpoint of a world model holds, and of the objective that it was trained by."""
    description = {"format": FORMAT_VERSION, "kind": "world model", "world_model": world_model.description()}
    return description | _optional(world_model, objective)


def describe_policy(
    world_model: WorldModel,
    actor: Actor,
    critic: Component,
    trained_tasks: Iterable[str],
    objective: Component | None = None,
) -> dict[str, Any]:
    """The description that a checkpoint of a policy holds; it contains its world model, and what trained that beside.

    Args:
        world_model: of the policy.
        actor: of the policy.
        critic: of the policy.
        trained_tasks: names of the tasks that the policy was trained for.
        objective: what the world model is trained by, or measured by, in this run.
    """
    description = {
        "format": FORMAT_VERSION,
        "kind": "policy",
        "world_model": world_model.description(),
        "actor": actor.description(),
        "critic": critic.description(),
        "trained_tasks": list(trained_tasks),
    }
    return description | _optional(world_model, objective)


def _optional(world_model: WorldModel, objective: Component | None) -> dict[str, Any]:
    """What a description holds where there is something to say: the specs of its tasks, and the objective."""
    found: dict[str, Any] = {}
    if world_model.task_specs:
        found[TASK_SPECS] = {name: dict(spec) for name, spec in world_model.task_specs.items()}
    return found if objective is None else found | {"objective": objective.description()}


def described_in(checkpoint: dict[str, Any], path: str | Path) -> dict[str, Any]:
    """The description in a checkpoint that has been read already; `path` says where from.

    A checkpoint of an older format is brought to this one first, as a whole and in place.

    Raises:
        LitPWMError: not of lit_pwm, of a newer format, or no description of networks.
    """
    description = checkpoint.get(DESCRIPTION_KEY)
    if description is None or "state_dict" not in checkpoint:
        keys = ", ".join(repr(key) for key in list(checkpoint)[:8])
        raise LitPWMError(
            f"The checkpoint {str(path)!r} was not written by lit_pwm: it holds {keys} and no {DESCRIPTION_KEY!r} "
            f"entry. Use the checkpoint of a WorldModelPretraining or PolicyLearning run. A file of another project "
            f"can be started from, and not be gone on with: give it as model.initial_checkpoint (a world model to "
            f"train further) or model.world_model_checkpoint (to train a policy on), without ckpt_path."
        )
    version = description.get("format") if isinstance(description, Mapping) else None
    if isinstance(version, int) and version > FORMAT_VERSION:
        raise LitPWMError(
            f"The checkpoint {str(path)!r} has format {version}, and this version of lit_pwm reads formats up to "
            f"{FORMAT_VERSION}. Upgrade lit_pwm."
        )
    if (wrong := _wrong_part(description)) is not None:
        raise LitPWMError(
            f"The checkpoint {str(path)!r} holds no description of networks that can be read: {wrong}. The file is "
            f"damaged; use a checkpoint as a lit_pwm run wrote it."
        )
    migrate(checkpoint, path)
    return checkpoint[DESCRIPTION_KEY]


def described_world_model(description: Mapping[str, Any]) -> WorldModel:
    """The world model that a checkpoint's description describes, with fresh weights and with the specs of its tasks.

    Raises:
        LitPWMError: as `WorldModel.from_description`.
    """
    world_model = WorldModel.from_description(description["world_model"])
    world_model.task_specs = {name: dict(spec) for name, spec in description.get(TASK_SPECS, {}).items()}
    return world_model


def _wrong_part(description: Any) -> str | None:
    """Which part of a description is not what all readers take it for; options of classes are checked by these."""
    if not isinstance(description, Mapping) or not isinstance(description.get("format"), int):
        return f"its {DESCRIPTION_KEY!r} entry is no description with a format"
    parts = _PARTS.get(kind) if isinstance(kind := description.get("kind"), str) else None
    if parts is None:
        return f"its kind is {kind!r:.80}, and should be one of {', '.join(_PARTS)}"
    if missing := [part for part in parts if not isinstance(description.get(part), Mapping)]:
        return f"it does not describe its {' and '.join(missing)}"
    model = description["world_model"]
    tasks, widths = model.get("tasks"), [model.get("obs_dim"), model.get("action_dim")]
    dims = list(tasks.values()) if isinstance(tasks, Mapping) else []
    if not dims or not all(isinstance(name, str) for name in tasks):
        return "its world model names no tasks"
    if not all(isinstance(pair, (list, tuple)) and len(pair) == 2 for pair in dims) or not all(
        type(width) is int and width > 0 for width in (*widths, *(width for pair in dims for width in pair))
    ):
        return "the widths of its tasks are no positive whole numbers"
    specs = description.get(TASK_SPECS, {})
    if not isinstance(specs, Mapping) or not all(isinstance(spec, Mapping) for spec in specs.values()):
        return f"its {TASK_SPECS} are {specs!r:.80}, and should be a spec for each of some tasks"
    trained = description.get("trained_tasks")
    # A file of PWM's does not say which task its policy was trained for: then the list is empty.
    if kind == "policy" and not (isinstance(trained, list) and all(name in list(tasks) for name in trained)):
        return f"its trained_tasks are {trained!r:.80}, and should be some of the world model's"
    return None
