"""Tasks that a loaded world model has never seen: it learns of them from this run's data."""

from __future__ import annotations

from collections.abc import Mapping

from lightning.pytorch.utilities.rank_zero import rank_zero_info

from lit_pwm.batch import DataSource
from lit_pwm.errors import LitPWMError, did_you_mean
from lit_pwm.models.growing import grow_world_model
from lit_pwm.models.world_model import WorldModel
from lit_pwm.tasks.registry import spec_if_known
from lit_pwm.updates.binding import standardise
from lit_pwm.updates.ends import terminating_tasks


def check_new_tasks(new: Mapping[str, str] | None, checkpoint: str | None, option: str) -> dict[str, str]:
    """The new tasks of a run, as plain values.

    Args:
        new: as the option `new_tasks` has it.
        checkpoint: what is to learn of them.
        option: that names it.

    Raises:
        LitPWMError: there is nothing that could.
    """
    for name, source in (new or {}).items():
        if not (isinstance(name, str) and name and isinstance(source, str) and source):
            raise LitPWMError(
                f"model.new_tasks holds {name!r}: {source!r}, where names of tasks are expected. Write, for example, "
                f'--model.new_tasks "{{my-robot: cheetah-run}}".'
            )
    if new and not checkpoint:
        raise LitPWMError(
            f"model.new_tasks names {', '.join(new)}, and model.{option} is not set. A model that starts from fresh "
            f"weights knows all tasks of its data: leave model.new_tasks out, or name the checkpoint that is to learn "
            f"a new task."
        )
    return dict(new or {})


def with_new_tasks(world_model: WorldModel, new: Mapping[str, str], source: DataSource) -> WorldModel:
    """A world model grown by the new tasks, of whose training episodes it takes the statistics if it has any.

    A model that standardises no task's observations does not begin with theirs.

    Raises:
        LitPWMError: the data lacks a new task, or the model cannot learn it (`grow_world_model`).
    """
    require_data(new, source)
    if not new:
        return world_model
    grown = grow_world_model(world_model, new, _tasks_of(source))
    if bool((world_model.obs_mean != 0).any() or (world_model.obs_std != 1).any()):
        standardise(source, grown, new)
    ends = terminating_tasks(source)
    grown.know_ends_({name: False for name in new if name not in ends})  # those that end begin as their source knows it
    for name, known in new.items():
        how = f"whose embedding starts as {known!r} has it" if grown.task_dim else "and tells it by observations alone"
        rank_zero_info(f"The world model learns of the task {name!r}, {how}.")
    return grown


def require_data(new: Mapping[str, str], source: DataSource) -> None:
    """Make sure that the data has the new tasks, of the widths that their specs say where they are registered.

    Raises:
        LitPWMError: it lacks one, or has another task of the name.
    """
    tasks = _tasks_of(source)
    for name in new:
        if name not in tasks:
            raise LitPWMError(
                f"model.new_tasks names {name!r}, which the data does not have; its dimensions and statistics come "
                f"from there. {did_you_mean(name, tasks)} Check data.store and data.tasks."
            )
        spec, dims = spec_if_known(name), tasks[name]
        if spec is not None and tuple(dims) != (spec.obs_dim, spec.action_dim):
            raise LitPWMError(
                f"model.new_tasks names {name!r}, which has {dims[0]} observation and {dims[1]} action entries in "
                f"the data, and {spec.obs_dim} and {spec.action_dim} in its environment: they are two tasks of one "
                f"name. Collect the data anew, or give it another name."
            )


def _tasks_of(source: DataSource) -> Mapping[str, tuple[int, int]]:
    """Those of a second stream too, on which a world model is trained."""
    return getattr(source, "all_tasks", source.tasks)
