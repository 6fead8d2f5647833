"""From a task to an environment that policies act in."""

from __future__ import annotations

import re

from gymnasium.envs.registration import EnvSpec

from lit_pwm.tasks.completing import completed
from lit_pwm.tasks.dm_control_env import DMControlEnv
from lit_pwm.tasks.gymnasium_env import GymnasiumTaskEnv
from lit_pwm.tasks.registry import task_spec
from lit_pwm.tasks.spec import TaskSpec
from lit_pwm.tasks.task_env import InvalidActionError, ResetNeededError, TaskEnv

__all__ = ["DMControlEnv", "GymnasiumTaskEnv", "InvalidActionError", "ResetNeededError", "TaskEnv", "make_env"]


def make_env(
    task: str | TaskSpec,
    seed: int = 0,
    render_mode: str | None = None,
    *,
    width: int = 256,
    height: int = 256,
    camera: int | str | None = None,
) -> TaskEnv:
    """The environment of a task.

    `reset()` starts the first episode of the environment's random stream for `seed`, and later calls go on in that
    stream; `reset(seed=s)` starts the stream of `s`, whatever was run before.

    Args:
        task: a registered name such as `"cheetah-run-backwards"`, `"gym:ID"` for an environment of gymnasium's, or a
            spec.
        seed: 0 to 2**32 - 1.
        render_mode: None, or `"rgb_array"` to have `render()` return frames, also without a display.
        width: of a frame of dm_control, in pixels; environments of gymnasium render as their own arguments say.
        height: likewise.
        camera: of dm_control, number or name of a camera of the model, or -1 for MuJoCo's free camera; the model's
            first one if not given, or the free one where it has none.

    Returns:
        A gymnasium environment with observations float32 [obs_dim] and actions in [-1, 1], float32 [action_dim].

    Raises:
        CannotRenderError: nothing on this machine can render it.
        LitPWMError: the task is not known or has no environment here, its dimensions are not those of its spec, its
            spaces are not of a kind that is supported, or an option is not one of those above.
    """
    spec = completed(task) if isinstance(task, TaskSpec) else task_spec(task)
    if spec.make:
        env: TaskEnv = GymnasiumTaskEnv(spec, seed, render_mode)
    else:
        env = DMControlEnv(spec, seed, render_mode, width=width, height=height, camera=camera)
    options = {"task": task, "seed": seed, "width": width, "height": height, "camera": camera}
    env.spec = EnvSpec(
        re.sub(r"[^\w:.-]", "_", spec.name) or "_",  # gymnasium takes no other signs in an id
        entry_point=f"{__name__}:make_env",
        order_enforce=False,
        disable_env_checker=True,
        kwargs=options,
    )
    return env
