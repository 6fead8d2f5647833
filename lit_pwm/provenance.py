"""Where numbers come from: versions and machine, for every record."""

from __future__ import annotations

import functools
import importlib.metadata
import os
import platform

import lit_pwm
from lit_pwm.runtime.processes import usable_cores

_PACKAGES = ("torch", "numpy", "mujoco", "dm_control", "gymnasium")


def versions() -> dict[str, str]:
    """Versions of lit_pwm, Python and the packages that bear on numbers."""
    return dict(_versions())


@functools.lru_cache(maxsize=1)
def _versions() -> dict[str, str]:
    """Looked up once: every checkpoint holds them, and they are files on a disk."""
    ours = {"lit_pwm": lit_pwm.__version__, "python": platform.python_version()}
    return ours | {name: importlib.metadata.version(name) for name in _PACKAGES}


def describe_machine() -> dict[str, str | int]:
    """The machine as far as it bears on times and numbers: system, processor, usable cores, memory."""
    known: dict[str, str | int] = {
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "usable cores": usable_cores(),
    }
    if (model := _processor()) is not None:
        known["processor"] = model
    if "SC_PHYS_PAGES" in os.sysconf_names:
        known["memory"] = f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 2**30:.1f} GiB"
    return known


def _processor() -> str | None:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            return next((line.split(":", 1)[1].strip() for line in file if line.startswith("model name")), None)
    except OSError:
        return platform.processor() or None
