"""Tasks that a policy's checkpoint knows, for collecting with it."""

from __future__ import annotations

from collections.abc import Sequence

from datamodules.behaviours import is_noise
from lit_pwm.tasks.file_specs import make_known
from lit_pwm.tasks.registry import registered_specs


def make_policys_tasks_known(behaviour: str, tasks: Sequence[str]) -> None:
    """Let the environments of tasks that are not registered be built by the specs that a policy's file holds of them.

    Args:
        behaviour: name of the behaviour.
        tasks: that it is to act in.

    Raises:
        LitPWMError: the file is no checkpoint, or as `lit_pwm.tasks.file_specs.make_known`.
    """
    asked = [name for name in tasks if name not in registered_specs()]
    if not asked or is_noise(behaviour):
        return
    from lit_pwm.checkpoints import read_description
    from lit_pwm.checkpoints.descriptions import TASK_SPECS

    description = read_description(behaviour, list(tasks))
    specs = description.get(TASK_SPECS, {})
    for name, (obs_dim, action_dim) in description["world_model"]["tasks"].items():
        if name in asked and name in specs:
            make_known(name, specs[name], (obs_dim, action_dim), f"the checkpoint {behaviour!r}")
