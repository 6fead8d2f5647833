"""From the spec of a task to the `gymnasium.Env` that its function makes."""

from __future__ import annotations

import functools
import inspect
import logging
import sys
from collections.abc import Callable
from typing import Any

import gymnasium

from lit_pwm.errors import LitPWMError, did_you_mean
from lit_pwm.tasks.allowed_imports import require_allowed
from lit_pwm.tasks.foreign_code import close_foreign, in_words
from lit_pwm.tasks.gymnasium_registry import registered
from lit_pwm.tasks.rendering import CannotRenderError, choose_backend
from lit_pwm.tasks.spec import GYM_MAKE, TaskSpec

_LOG = logging.getLogger(__name__)


def load_gymnasium(spec: TaskSpec, rendering: bool = False) -> gymnasium.Env[Any, Any]:
    """The environment of a task, as its own function makes it.

    Args:
        spec: names the function and its arguments.
        rendering: whether frames will be asked for: the function is given `render_mode="rgb_array"` then.

    Raises:
        CannotRenderError: frames are wanted, and the environment gives none.
        LitPWMError: the function may not be imported, is not there, fails, or returns something else.
    """
    choose_backend()  # MuJoCo reads it when it is imported
    _let_mujoco_warn_by_logging()
    make, about = _maker(spec)
    arguments = {**spec.kwargs}
    if rendering:
        if not _takes_render_mode(make):
            raise CannotRenderError(
                f"Frames of {spec.name!r} were asked for, but {spec.make} takes no argument render_mode. Give it one, "
                f"and hand it to the environment.",
                "what makes its environment takes no render_mode",
            )
        arguments["render_mode"] = "rgb_array"
    try:
        env = make(**arguments)
    except LitPWMError:
        raise
    except Exception as error:  # whatever the environment's code raises
        said = in_words(error)
        message = (
            f"The environment of {spec.name!r} could not be made: {spec.make} with the arguments {arguments} raised "
            f"{said}. {about}"
        )
        if rendering and _can_be_made(make, spec):
            raise CannotRenderError(message, f"its environment cannot be made to render ({said})") from error
        raise LitPWMError(message) from error
    if not isinstance(env, gymnasium.Env):
        raise LitPWMError(
            f"The environment of {spec.name!r} should be made by {spec.make}, which returned a {type(env).__name__}. "
            f"Name a function that returns a gymnasium.Env."
        )
    if rendering and "rgb_array" not in (modes := (env.metadata or {}).get("render_modes") or ()):
        raise CannotRenderError(
            f"Frames of {spec.name!r} were asked for, but its environment's render modes are {list(modes)}. Give it "
            f"the mode 'rgb_array'.",
            "its environment does not render as arrays",
        )
    return env


@functools.cache
def _let_mujoco_warn_by_logging() -> None:
    """Keep MuJoCo from writing its warnings into a file of the current folder; dm_control, where it is, does so too."""
    if "dm_control.mujoco.wrapper.core" not in sys.modules:
        import mujoco

        mujoco.set_mju_user_warning(_logged)  # ty: ignore[missing-attribute]


def _logged(warning: str) -> None:
    # The first are of gymnasium's own models, every time that they are built.
    _LOG.log(logging.DEBUG if "is deprecated" in warning else logging.WARNING, "MuJoCo warns: %s", warning)


def _maker(spec: TaskSpec) -> tuple[Callable[..., Any], str]:
    """What makes the environment, and what to look at where it fails."""
    if spec.make == GYM_MAKE:
        return _make_registered, "Check that the packages it needs are installed."
    module_name, _, path = spec.make.partition(":")
    found: Any = require_allowed(module_name, f"The TaskSpec of {spec.name!r}")
    for part in path.split("."):
        if not hasattr(found, part):
            raise LitPWMError(
                f"The environment of {spec.name!r} should be made by {spec.make}, and there is no {part!r} in "
                f"{getattr(found, '__name__', found)}. {did_you_mean(part, [n for n in dir(found) if n[0] != '_'])}"
            )
        found = getattr(found, part)
    if not callable(found):
        raise LitPWMError(
            f"The environment of {spec.name!r} should be made by {spec.make}, which is a {type(found).__name__} and no "
            f"function. Name a function that returns a gymnasium.Env."
        )
    return found, "Check the kwargs of its TaskSpec."


def _make_registered(id: str = "", **arguments: Any) -> gymnasium.Env[Any, Any]:
    """As `gymnasium.make`, which would import what an id asks for; its checker's notices are not for this use."""
    if not isinstance(id, str):
        raise TypeError(f"the id of an environment of gymnasium is a text, and not {id!r}")
    return gymnasium.make(registered(id, f"The id {id!r}"), **{"disable_env_checker": True} | arguments)


def _takes_render_mode(make: Callable[..., Any]) -> bool:
    parameters = inspect.signature(make).parameters.values()
    return any(one.name == "render_mode" or one.kind is one.VAR_KEYWORD for one in parameters)


def _can_be_made(make: Callable[..., Any], spec: TaskSpec) -> bool:
    """Whether it is for the frames alone that an environment cannot be made."""
    try:
        env = make(**spec.kwargs)
    except Exception:
        return False
    close_foreign(env, spec.name)
    return True
