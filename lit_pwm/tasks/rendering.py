"""Which OpenGL backend MuJoCo renders with on this machine, chosen before anything loads a simulator.

dm_control reads MUJOCO_GL when it is imported: `egl` on a machine without a working EGL makes the import itself fail,
and no value at all makes rendering fail later. So the value is found out first, and machines that cannot render still
train, without videos.
"""

from __future__ import annotations

import functools
import logging
import os
import subprocess
import sys
from pathlib import Path

from lit_pwm.errors import LitPWMError, did_you_mean

_LOG = logging.getLogger(__name__)
_VARIABLE = "MUJOCO_GL"
_PROBE = Path(__file__).with_name("gl_probe.py")
_PROBE_SECONDS = 30.0
_KNOWN_TO_WORK = "LIT_PWM_GL_KNOWN_TO_WORK"
"""Names the backend that was probed, so that the processes started from here need not probe again."""

_SPELLINGS = {
    "egl": ("egl",),
    "osmesa": ("osmesa",),
    "glfw": ("glfw", "on", "enable", "enabled", "true", "1"),
    "disabled": ("disabled", "disable", "off", "false", "0"),
}
"""The values of MUJOCO_GL that dm_control accepts, by what they mean."""


class CannotRenderError(LitPWMError):
    """Frames of an environment were asked for, and there can be none of it on this machine.

    Args:
        message: what was asked for, what is the matter, and what to do.
        reason: what is the matter, in a few words.
    """

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


def choose_backend() -> str:
    """Settle MUJOCO_GL for this process and those it starts; call it before dm_control is imported.

    A value that is set is kept. Otherwise EGL is taken if it works, else OSMesa, else rendering is disabled and a
    notice logged, once. Asking again costs nothing.

    Returns:
        `"egl"`, `"osmesa"`, `"glfw"` or `"disabled"`.

    Raises:
        LitPWMError: MUJOCO_GL is set to a value that dm_control does not know, or to a backend that does not work here,
            with which dm_control could not even be imported.
    """
    value = os.environ.get(_VARIABLE, "")
    if not value:
        backend = _find_backend()
        os.environ[_VARIABLE] = backend
        return backend
    for backend, spellings in _SPELLINGS.items():
        if value in spellings:
            if not _works(backend):
                raise LitPWMError(
                    f"The environment variable {_VARIABLE} is {value!r}, but {backend} gives no OpenGL context on this "
                    f"machine, so that dm_control could not be imported. Unset {_VARIABLE} to have a working backend "
                    f"chosen, set it to 'disabled' to run without videos, or install the library (on Debian and "
                    f"Ubuntu libegl1, or libosmesa6)."
                )
            return backend
    accepted = [spelling for spellings in _SPELLINGS.values() for spelling in spellings]
    raise LitPWMError(
        f"The environment variable {_VARIABLE}, which says what MuJoCo renders with, is {value!r}. "
        f"{did_you_mean(value, accepted)} Or unset it, to have a working backend chosen."
    )


def can_render() -> bool:
    """Whether environments can be rendered here, according to `choose_backend`.

    Raises:
        LitPWMError: as `choose_backend`.
    """
    return choose_backend() != "disabled"


def _find_backend() -> str:
    if not sys.platform.startswith("linux"):
        return "glfw"  # the only one of dm_control's backends on other systems
    for backend in ("egl", "osmesa"):
        if _works(backend):
            return backend
    _LOG.warning("Neither EGL nor OSMesa works on this machine: going on without rendering, so without videos.")
    return "disabled"


@functools.cache
def _works(backend: str) -> bool:
    """Whether a headless backend gives a context; the others are taken at their word."""
    if backend not in ("egl", "osmesa"):
        return True
    if os.environ.get("PYOPENGL_PLATFORM") not in (None, "", backend):
        return False  # dm_control refuses to contradict it
    if os.environ.get(_KNOWN_TO_WORK) == backend:
        return True
    command = [sys.executable, "-I", "-S", str(_PROBE), backend]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            timeout=_PROBE_SECONDS, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return False
    if done.returncode != 0:
        return False
    os.environ[_KNOWN_TO_WORK] = backend
    return True
