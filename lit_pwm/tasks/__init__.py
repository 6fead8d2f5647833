"""The real environments: which tasks there are, and gymnasium environments for them.

Nothing here loads a simulator before an environment is made.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from lit_pwm.tasks.registry import TASK_SETS, action_mask, register, registered_tasks, task_spec
from lit_pwm.tasks.spec import TaskSpec

if TYPE_CHECKING:
    from lit_pwm.tasks.environment import make_env

__all__ = ["TASK_SETS", "TaskSpec", "action_mask", "make_env", "register", "registered_tasks", "task_spec"]


def __getattr__(name: str) -> Any:
    # Resolved on first use: gymnasium, which the environments are built on, is not needed to look up a name.
    if name == "make_env":
        return importlib.import_module("lit_pwm.tasks.environment").make_env
    raise AttributeError(f"module 'lit_pwm.tasks' has no attribute {name!r}")
