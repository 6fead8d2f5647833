"""Our own checkpoints: Lightning's, with a plain description of the networks beside the weights.

The description lets `load_world_model` and `load_policy` rebuild the networks without the LightningModule that trained
them, its config, or the data.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

from torch import Tensor, nn

from lit_pwm.checkpoints.descriptions import describe_policy, describe_world_model, described_in, described_world_model
from lit_pwm.checkpoints.formats.base import FOREIGN_KEY, NO_POLICY, TaskNames, notice
from lit_pwm.checkpoints.formats.format_registry import read_any
from lit_pwm.checkpoints.migration import DESCRIPTION_KEY
from lit_pwm.checkpoints.networks import building, check_same_networks, completed
from lit_pwm.checkpoints.reading import read_checkpoint
from lit_pwm.checkpoints.references import put_back
from lit_pwm.errors import LitPWMError
from lit_pwm.models.actors import Actor
from lit_pwm.models.component import Component, factory_from
from lit_pwm.models.critics import CriticEnsemble
from lit_pwm.models.growing import grown_weights
from lit_pwm.models.policy import Policy
from lit_pwm.models.world_model import WorldModel
from lit_pwm.runtime.imports import ignoring_options
from lit_pwm.runtime.supplied import supplying

__all__ = [
    "DESCRIPTION_KEY",
    "building",
    "carried_parts",
    "check_same_networks",
    "describe_policy",
    "describe_world_model",
    "described_in",
    "described_world_model",
    "description_of",
    "initial_world_model",
    "load_actor_and_critic",
    "load_policy",
    "load_world_model",
    "read_checkpoint",
    "read_description",
]


def read_description(path: str | Path, acting_in: Sequence[str] | None = None) -> dict[str, Any]:
    """The description in a checkpoint file.

    Args:
        path: the checkpoint.
        acting_in: as for `load_policy`.

    Raises:
        LitPWMError: unreadable, not of lit_pwm, or of a newer format.
    """
    return described_in(read_any(path, otherwise_tasks=acting_in), path)


def description_of(checkpoint: dict[str, Any], path: str | Path) -> dict[str, Any]:
    """As `described_in`; a checkpoint that leaves its world model out gets it (`lit_pwm.checkpoints.references`).

    Raises:
        LitPWMError: as `described_in`; or its world model is not to be had.
    """
    description = described_in(checkpoint, path)
    names = list(description["world_model"]["tasks"])  # for a file of another format, which may not say them
    put_back(checkpoint, description, path, partial(load_world_model, tasks=names))
    return description


def load_world_model(
    path: str | Path, ignore_options: Iterable[str] = (), tasks: TaskNames | None = None
) -> WorldModel:
    """The world model of a checkpoint, in evaluation mode on the CPU.

    Args:
        path: the checkpoint, of pre-training, of policy learning, or of another format (`lit_pwm.checkpoints.formats`).
            Import the modules of components that are not lit_pwm's before.
        ignore_options: options that the checkpoint holds and their classes no longer have.
        tasks: names of its tasks in the order of its rows, where it does not say them, or a task set's name.

    Raises:
        LitPWMError: the file is missing, unreadable, holds no world model, or its tasks need names.
    """
    return _world_model_in(read_any(path, tasks), path, ignore_options).eval()


def initial_world_model(path: str | Path, tasks: TaskNames | None = None, trains: bool = True) -> WorldModel:
    """As `load_world_model`, for a run that starts from it, in training mode; says what the run's files will not hold.

    Args:
        path: the checkpoint.
        tasks: names of its tasks, where it does not say them.
        trains: whether the run trains the model further.
    """
    checkpoint = read_any(path, tasks)
    world_model = _world_model_in(checkpoint, path)
    if carried := carried_parts(checkpoint):
        why = "do not fit a model that is trained further" if trains else "have no use in this run"
        notice(f"The checkpoint {path} also holds {carried}, which {why}: this run's checkpoints are without.")
    return world_model.train()


def carried_parts(checkpoint: Mapping[str, Any]) -> str:
    """What keys of the tensors begin with that a checkpoint of another format brought and lit_pwm does not use."""
    foreign = checkpoint.get(FOREIGN_KEY)
    carried = foreign.get("carried") if isinstance(foreign, Mapping) else None
    parts = [str(key).partition(".")[0] for key in carried] if isinstance(carried, Mapping) else []
    return ", ".join(dict.fromkeys(parts))


def _world_model_in(checkpoint: dict[str, Any], path: str | Path, ignore_options: Iterable[str] = ()) -> WorldModel:
    with building(path), ignoring_options(ignore_options):
        world_model = described_world_model(description_of(checkpoint, path))
    _load(world_model, checkpoint["state_dict"], "world_model.", path)
    return world_model


def load_policy(
    path: str | Path,
    ignore_options: Iterable[str] = (),
    tasks: TaskNames | None = None,
    world_model: str | Path | None = None,
    acting_in: Sequence[str] | None = None,
) -> Policy:
    """The policy of a checkpoint of policy learning, with its critics, in evaluation mode on the CPU.

    Its `actor` is the averaged one (EMA), which evaluations act with; its `critic` and `target_critic` are None where
    the file holds no such weights.

    Args:
        path: the checkpoint. Import the modules of components that are not lit_pwm's before.
        ignore_options: options that the checkpoint holds and their classes no longer have.
        tasks: names of its tasks in the order of its rows, where it does not say them, or a task set's name. Files of
            PWM's and Flow-MBPO-PWM's do not say for which of their world model's tasks the policy was trained: these
            may be named alone where the others are known.
        world_model: the file of its world model, for a checkpoint that was saved without (`save_world_model:
            reference`); by default the one that it was trained on.
        acting_in: as `tasks`, for a file that does not say its own; of one that does, nothing.

    Raises:
        LitPWMError: the file is missing, unreadable, holds no policy, or its tasks need names; or its world model's
            file is missing, or holds another.
    """
    how = f"lit-pwm fit --config configs/policy_learning.yaml --model.world_model_checkpoint {path} ..."
    with supplying(world_model):
        checkpoint, description = _read_policy(path, f"Train one on it: {how}", tasks, acting_in)
    with building(path), ignoring_options(ignore_options):
        model = described_world_model(description)
        dimensions = (model.latent_dim, model.action_dim, len(model.tasks))
        actor = factory_from(description["actor"], Actor)(*dimensions)
        actor.set_action_mask(model.action_mask())
        make_critic = factory_from(description["critic"], CriticEnsemble)
        critics = {name: make_critic(model.latent_dim, len(model.tasks)) for name in ("critic", "target_critic")}
    state = checkpoint["state_dict"]
    _load(model, state, "world_model.", path)
    _load(actor, state, "averaged_actor.", path)
    held = {name: critic for name, critic in critics.items() if any(key.startswith(f"{name}.") for key in state)}
    for name, critic in held.items():
        _load(critic, state, f"{name}.", path)
    return Policy(model, actor, tuple(description["trained_tasks"]), **held).eval()


def load_actor_and_critic(
    path: str | Path,
    world_model: WorldModel,
    actor: Actor,
    critic: Component,
    tasks: TaskNames | None = None,
    new_tasks: Mapping[str, str] = MappingProxyType({}),
) -> list[str]:
    """Copy the weights of a policy (its averaged actor) and of its critics into networks of the same kinds and sizes.

    Args:
        path: the policy's checkpoint.
        world_model: that the policy is to go on with.
        actor: takes the weights of the averaged actor.
        critic: takes the critics'.
        tasks: names of the file's tasks, where it does not say them.
        new_tasks: tasks of `world_model` that the policy may not know, each with the known one (or `mean`) that its
            inputs start as (`lit_pwm.models.growing`).

    Returns:
        Those of the new tasks that the policy did not know.

    Raises:
        LitPWMError: the file is missing, unreadable, holds no policy, one of other kinds or sizes, or one whose world
            model numbers its tasks in another way than `world_model`, on which the policy is to go on.
    """
    checkpoint, description = _read_policy(
        path, "Name a checkpoint of policy learning, or leave it out to start from fresh weights.", tasks
    )
    ours = {"actor": actor.description(), "critic": critic.description()}
    with building(path):
        theirs = completed(description)
    check_same_networks(ours, {key: theirs[key] for key in ours}, path)
    known = dict(description["world_model"]["tasks"])
    grown = {name: source for name, source in new_tasks.items() if name not in known}
    together = known | {name: list(world_model.tasks[name]) for name in grown}
    if not world_model.numbers_tasks_like({**description["world_model"], "tasks": together}):
        theirs = ", ".join(known)
        raise LitPWMError(
            f"The policy in the checkpoint {str(path)!r} belongs to a world model of the tasks {theirs}, in this "
            f"order, and this run's has {', '.join(world_model.task_names)}: names, order and widths must be the "
            f"same, because the policy knows tasks by their number. Start from it on the world model that it was "
            f"trained on, or on one that was trained further from that (model.initial_checkpoint), or leave "
            f"model.initial_policy_checkpoint out."
        )
    for module, prefix in ((actor, "averaged_actor."), (critic, "critic.")):
        wanted = {f"{prefix}{name}": value for name, value in module.state_dict().items()}
        state = (
            grown_weights(checkpoint["state_dict"], wanted, list(known), grown) if grown else checkpoint["state_dict"]
        )
        _load(module, state, prefix, path)
    return list(grown)


def _read_policy(
    path: str | Path, advice: str, tasks: TaskNames | None = None, acting_in: TaskNames | None = None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """A policy's checkpoint and its description; `advice` ends the error if it holds something else."""
    checkpoint = read_any(path, tasks, acting_in)
    description = description_of(checkpoint, path)
    if description["kind"] != "policy":
        foreign = checkpoint.get(FOREIGN_KEY)
        why = foreign.get(NO_POLICY) if isinstance(foreign, Mapping) else None
        found = f"a {description['kind']}{f' ({why})' if isinstance(why, str) else ''}"
        raise LitPWMError(f"The checkpoint {str(path)!r} holds {found}, and a policy is needed here. {advice}")
    return checkpoint, description


def _load(module: nn.Module, state: Mapping[str, Tensor], prefix: str, path: str | Path) -> None:
    try:
        own = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
        module.load_state_dict(own)
    except Exception as error:  # weights that are something else fail in any way
        found = " ".join(str(error).split())
        raise LitPWMError(
            f"The weights in the checkpoint {str(path)!r} do not fit the network it describes: {found}. The file is "
            f"damaged, or the class that its description names has changed since."
        ) from error
