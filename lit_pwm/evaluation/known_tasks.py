"""Tasks of a policy, found again by the specs that its file or its data holds of them."""

from __future__ import annotations

from collections.abc import Iterable

from lit_pwm.errors import LitPWMError
from lit_pwm.evaluation.acting import Policy
from lit_pwm.models.policy import Policy as LatentPolicy
from lit_pwm.models.world_model import WorldModel
from lit_pwm.tasks.file_specs import make_known, says_enough
from lit_pwm.tasks.registry import registered_specs, task_spec
from lit_pwm.tasks.spec import GYM_PREFIX, TaskSpec


def is_known(task: str, world_model: WorldModel) -> bool:
    """Whether this process, the task's name, or what the model has of it says what its environment is."""
    return task in registered_specs() or task.startswith(GYM_PREFIX) or says_enough(world_model.task_specs.get(task))


def known_task(task: str, world_model: WorldModel, file: str) -> TaskSpec:
    """The spec of a task, by whose name its environment can be built from now on.

    Args:
        task: its name.
        world_model: of the policy that is to act in it.
        file: where the model's specs come from, for errors, such as `the checkpoint 'last.ckpt'`.

    Raises:
        LitPWMError: there is no such task, or as `lit_pwm.tasks.file_specs.make_known`.
    """
    if task not in world_model.tasks:
        return task_spec(task)
    return make_known(task, world_model.task_specs.get(task), world_model.tasks[task], file)


def why_none(task: str, world_model: WorldModel, file: str) -> str | None:
    """Why there is no environment of a task, in a sentence; None where there is one, by the task's name from now on.

    Args:
        task: its name.
        world_model: of the policy that is to act in it.
        file: where the model's specs come from, as for `known_task`.
    """
    if not is_known(task, world_model):
        return (
            f"lit_pwm knows none: it is not registered in this process, and {file} does not say how it is made. Make "
            f"it known with lit_pwm.tasks.register(TaskSpec(...)), in a module named by --import MODULE."
        )
    try:
        runnable = known_task(task, world_model, file).runnable
    except LitPWMError as error:
        return f"there is none. {error}"
    return None if runnable else "lit_pwm knows none: those of Meta-World are not supported yet."


def make_tasks_known(policy: Policy, tasks: Iterable[str], checkpoint: str | None = None) -> None:
    """Make sure that a policy's tasks are known, also those that are by the specs in its file alone.

    Args:
        policy: that is to act in them.
        tasks: their names.
        checkpoint: the file that the policy came from, for errors.

    Raises:
        LitPWMError: as `known_task`.
    """
    file = "the policy's file" if checkpoint is None else f"the checkpoint {checkpoint!r}"
    for task in tasks:
        if isinstance(policy, LatentPolicy):
            known_task(task, policy.world_model, file)
        else:
            task_spec(task)
