"""Where data meets a world model: tasks are matched by name, and nothing else says which is which."""

from __future__ import annotations

from collections.abc import Iterable

from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.rank_zero import rank_zero_info

from lit_pwm.batch import DataSource
from lit_pwm.errors import LitPWMError
from lit_pwm.models.world_model import WorldModel
from lit_pwm.tasks.stored_specs import StoredSpec, differences, merged, registered_spec, stored_spec
from lit_pwm.updates.ends import require_continuation


def source_of(module: LightningModule) -> DataSource:
    """The datamodule that the module's Trainer was given.

    Raises:
        LitPWMError: none was given, or one that does not name its tasks. Bare loaders number tasks in an order that
            nobody can check.
    """
    source = getattr(module.trainer, "datamodule", None)
    if not isinstance(source, DataSource):
        raise LitPWMError(
            f"{type(module).__name__} takes dimensions and the names of tasks from the data, but the Trainer was given "
            f"{type(source).__name__} for a datamodule. Pass `datamodule=MultitaskDataModule(...)` to the Trainer."
        )
    return source


def bind(source: DataSource, world_model: WorldModel) -> None:
    """Let the data number its tasks as the world model does, by name, and pad its rows to the model's widths.

    The model keeps the specs of the data's tasks, so that checkpoints have what evaluation needs.

    Raises:
        LitPWMError: the data has a task that the model does not know, or one of other widths under a name it knows; or
            it holds terminations, and the model has no continuation head.
    """
    source.bind_tasks(world_model.task_names, world_model.obs_dim, world_model.action_dim)
    # What is known of a second stream's tasks; a datamodule of one stream need not say.
    for name, dims in getattr(source, "all_tasks", source.tasks).items():
        if tuple(dims) != world_model.tasks[name]:
            known = world_model.tasks[name]
            raise LitPWMError(
                f"The task {name!r} has {dims[0]} observation and {dims[1]} action entries in the data, and {known[0]} "
                f"and {known[1]} in the world model: it is another task of the same name. Leave it out with "
                f"data.tasks, or train a world model on this data."
            )
    require_continuation(source, world_model)
    specs = getattr(source, "task_specs", {})
    for name in getattr(source, "all_tasks", source.tasks):
        _keep_spec(world_model, name, specs.get(name))


def _keep_spec(world_model: WorldModel, name: str, spec: StoredSpec | None) -> None:
    """Let the model know what the data (`spec`), or else this process, knows of a task's environment."""
    if not spec and (registered := registered_spec(name, *world_model.tasks[name])) is not None:
        spec = stored_spec(registered, ran_here=False)
    if not spec:
        return
    before = world_model.task_specs.get(name, {})
    if differing := differences(before, spec):
        there, here = ({key: one[key] for key in differing} for one in (before, spec))
        rank_zero_info(
            f"The environment of {name!r} is {there} in the world model's checkpoint and {here} in the data."
        )
        before = {}
    world_model.task_specs[name] = merged([spec, before])


def standardise(source: DataSource, world_model: WorldModel, tasks: Iterable[str]) -> None:
    """Let the model scale observations of these tasks by their training episodes' mean and deviation, from now on."""
    statistics = source.observation_statistics()
    left = world_model.set_observation_statistics({name: statistics[name] for name in tasks})
    for name, entries in left.items():
        rank_zero_info(
            f"Observation entries {', '.join(map(str, entries))} of {name!r} vary by no more than rounding and are not "
            f"scaled."
        )


def hold_absent_tasks(world_model: WorldModel, present: Iterable[str]) -> None:
    """Let training leave the embeddings of tasks that its data lacks as they are, to the bit.

    No gradient reaches them, but weight decay would shrink them, and moments of an earlier run would move them. Called
    when training starts, once the weights are there and on their device.
    """
    present = set(present)
    absent = [row for row, name in enumerate(world_model.task_names) if name not in present]
    world_model.task_embedding.hold(absent)


def notice_unused_stream(source: DataSource, why: str) -> None:
    """Say that the data's second stream is drawn for nothing, if it has one.

    Args:
        source: the data.
        why: nobody uses it, and what to do about that.
    """
    if getattr(source, "second_tasks", None):
        rank_zero_info(f"The data has a second stream (data.second), which this run does not use: {why}")


def ask_for_first_observations(source: DataSource) -> None:
    """Let training batches hold the first observations of slices alone, if the data can do that: no other is used."""
    if (ask := getattr(source, "give_first_observations_only", None)) is not None:
        ask()
