"""From a task's spec to dm_control's environment of it."""

from __future__ import annotations

import importlib
import logging
import os
from typing import TYPE_CHECKING

from lit_pwm.errors import LitPWMError, did_you_mean
from lit_pwm.tasks.allowed_imports import require_allowed
from lit_pwm.tasks.rendering import CannotRenderError, choose_backend
from lit_pwm.tasks.spec import TaskSpec

if TYPE_CHECKING:
    from dm_control.rl import control


def _worth_reading(record: logging.LogRecord) -> bool:
    # MuJoCo says this of dm_control's own cheetah, every time that it is built.
    return "'settotalmass' is deprecated" not in record.getMessage()


def load(spec: TaskSpec, seed: int, rendering: bool) -> control.Environment:
    """dm_control's environment of a task, its random stream seeded.

    The first call loads dm_control, after a rendering backend has been chosen for it.

    Args:
        spec: names the package, the domain's module in it and the entry of that module's `SUITE`.
        seed: 0 to 2**32 - 1, of the task's `RandomState`.
        rendering: whether frames will be asked for.

    Raises:
        LitPWMError: the task has no environment here, dm_control cannot be imported with the chosen backend, or frames
            are wanted and nothing can render them.
    """
    if not spec.runnable:
        raise LitPWMError(
            f"The task {spec.name!r} belongs to Meta-World, whose environments are not supported yet: lit_pwm knows "
            f"its name and dimensions, so that data of it can be used, but cannot run it. Choose a task of the set "
            f"'mt30' to act in."
        )
    backend = choose_backend()
    if rendering and backend == "disabled":
        raise CannotRenderError(
            f"Frames of {spec.name!r} were asked for with render_mode='rgb_array', but nothing on this machine can "
            f"render (MUJOCO_GL is 'disabled'). Use render_mode=None, or install EGL or OSMesa libraries.",
            "nothing on this machine can render",
        )
    try:
        importlib.import_module("dm_control.suite")
    except Exception as error:  # whatever the chosen rendering library raises
        raise LitPWMError(
            f"dm_control could not be imported with the rendering backend MUJOCO_GL={os.environ.get('MUJOCO_GL')!r}: "
            f"{str(error).rstrip('.')}. Unset MUJOCO_GL to have a working backend chosen, or set it to 'disabled' to "
            f"do without frames."
        ) from error
    logging.getLogger("absl").addFilter(_worth_reading)
    domain = require_allowed(f"{spec.suite}.{spec.domain}", f"The TaskSpec of {spec.name!r}")
    if spec.task not in domain.SUITE:
        raise LitPWMError(
            f"The environment of {spec.name!r} should be {spec.task!r} of '{spec.suite}.{spec.domain}', which has no "
            f"such task. {did_you_mean(spec.task, domain.SUITE)}"
        )
    return domain.SUITE[spec.task](random=seed)
