"""Networks that learn tasks they have never seen: each axis that counts tasks grows, and what was there stays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from lit_pwm.errors import LitPWMError, did_you_mean
from lit_pwm.models.world_model import WorldModel

MEAN = "mean"
"""In place of a known task's name: the mean over all known tasks (unless one of them is called so)."""
_OPTION = "model.new_tasks"


def grown_weights(
    state: Mapping[str, Tensor], wanted: Mapping[str, Tensor], known: Sequence[str], new: Mapping[str, str]
) -> dict[str, Tensor]:
    """The weights of networks of known tasks, as weights of networks that know new ones behind these.

    Along an axis that counts tasks, the entries of a new task start as those of its source. Whatever was there keeps
    its bits; what differs in another way is left for loading to refuse.

    Args:
        state: weights by name.
        wanted: those of the networks they are for, whose shapes say which axes count tasks.
        known: the known tasks in their order.
        new: new task → the known one that it starts as, or `mean`.

    Raises:
        LitPWMError: a source is no known task.
    """
    require_sources(known, new)
    return {
        name: _grown(value, wanted[name].shape, known, new) if name in wanted and isinstance(value, Tensor) else value
        for name, value in state.items()
    }


def _grown(value: Tensor, shape: torch.Size, known: Sequence[str], new: Mapping[str, str]) -> Tensor:
    if value.ndim != len(shape):
        return value
    for axis, size in enumerate(shape):
        if value.shape[axis] == len(known) and size == len(known) + len(new):
            value = torch.cat([value, *(_of_source(value, axis, known, source) for source in new.values())], dim=axis)
    return value


def _of_source(value: Tensor, axis: int, known: Sequence[str], source: str) -> Tensor:
    if source in known:
        return value.narrow(axis, list(known).index(source), 1)
    return value.narrow(axis, 0, len(known)).double().mean(axis, keepdim=True).to(value.dtype)


def grow_world_model(
    world_model: WorldModel, new: Mapping[str, str], dims: Mapping[str, tuple[int, int]]
) -> WorldModel:
    """A world model that knows the tasks of `world_model`, under their ids and to the bit, and new ones behind them.

    A new task's embedding starts as its source's; its observations are not scaled yet (mean 0, deviation 1), because
    the source's statistics are of other observations.

    Args:
        world_model: what is known.
        new: new task → the known one that it starts as, or `mean`.
        dims: new task → (obs_dim, action_dim).

    Raises:
        LitPWMError: a source is no known task, a new task is known already, or it is wider than the model.
    """
    require_sources(world_model.task_names, new)
    for name in new:
        if name in world_model.tasks:
            raise already_known(name, world_model.task_names)
        if dims[name][0] > world_model.obs_dim or dims[name][1] > world_model.action_dim:
            raise LitPWMError(
                f"{_OPTION} names {name!r}, which has {dims[name][0]} observation and {dims[name][1]} action entries, "
                f"and the world model takes {world_model.obs_dim} and {world_model.action_dim}: its layers are no "
                f"wider than the widest task that it was trained on. Train a world model on this task's data."
            )
    description = world_model.description()
    description["tasks"] |= {name: list(dims[name]) for name in new}
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):  # no weight is drawn that stays
        grown = WorldModel.from_description(description)
    weights = grown_weights(world_model.state_dict(), grown.state_dict(), world_model.task_names, new)
    count = len(world_model.tasks)
    weights["obs_mean"][count:], weights["obs_std"][count:] = 0, 1
    grown.load_state_dict(weights)
    grown.task_specs = dict(world_model.task_specs)
    return grown.train(world_model.training)


def require_sources(known: Sequence[str], new: Mapping[str, str]) -> None:
    """Make sure that new tasks start as known ones.

    Raises:
        LitPWMError: one does not.
    """
    for name, source in new.items():
        if source != MEAN and source not in known:
            raise LitPWMError(
                f"{_OPTION} lets {name!r} start as {source!r}, which is no task that the model knows. "
                f"{did_you_mean(source, known)} Or write {MEAN!r} for the mean over all of them."
            )


def already_known(name: str, known: Sequence[str]) -> LitPWMError:
    """The error for a new task that is none."""
    return LitPWMError(
        f"{_OPTION} names {name!r}, which the model knows already; it knows {', '.join(known)}. Leave it out of "
        f"{_OPTION} to train this task further, or give the data's task another name."
    )
