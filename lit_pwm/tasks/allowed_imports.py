"""Modules that the specs of tasks may have imported.

A spec may come from a file, and so may the name of an environment (`gym:MODULE:ID`): what they name is never imported
because they name it. Every import that a task asks for goes through `require_allowed`.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType

from lit_pwm.errors import LitPWMError
from lit_pwm.runtime.imports import is_named

_OURS = ("lit_pwm.tasks", "dm_control.suite", "gymnasium.envs")
_allowed: set[str] = set()


def allow(module: str) -> None:
    """Let a module be imported in this process for the sake of a task: code that runs here asks for it."""
    _allowed.add(module)


def is_allowed(module: str) -> bool:
    """Whether a module may be imported for the sake of a task.

    It is one of ours, one that code in this process has allowed (`allow`), one named by `--import`, or one that has
    been imported already and is not of Python's standard library, whose functions make no environments.
    """
    if is_named(module) or any(module == name or module.startswith(f"{name}.") for name in (*_OURS, *_allowed)):
        return True
    return module in sys.modules and module.split(".")[0] not in sys.stdlib_module_names


def require_allowed(module: str, about: str) -> ModuleType:
    """Import a module that a task's spec or name asks for.

    Args:
        module: its name.
        about: what asks for it, as the beginning of a sentence.

    Raises:
        LitPWMError: it may not be imported, or there is none.
    """
    if not is_allowed(module):
        raise LitPWMError(
            f"{about} asks for the module {module!r}, which is not imported because a name or a file says so: that "
            f"runs its code. If you trust it, give --import {module} on the command line, or import it in Python first."
        )
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise LitPWMError(
            f"{about} asks for the module {module!r}, which could not be imported: {error}. Check its name, or install "
            f"it."
        ) from error
