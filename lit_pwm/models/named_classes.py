"""Classes and their options as checkpoints and configs name them: what may be taken, and what is said of the rest."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from types import ModuleType
from typing import Any, TypeVar

from lit_pwm.errors import LitPWMError
from lit_pwm.runtime.imports import ignored_options, trusted_module

C = TypeVar("C")
_STUDIES = ("benchmarks", "encoder_steadying", "stochastic_controls", "stochastic_samplers")
"""Modules of the checkout's folder `benchmarks`, which is not installed, and that folder, as class paths begin."""


def known_options(owner: type, options: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The options that `owner` takes, of those that a checkpoint holds for it.

    Args:
        owner: the class to be built.
        options: by name.
        name: what the checkpoint calls the class.

    Raises:
        LitPWMError: others are among them, and they are not ignored (`lit_pwm.runtime.imports.ignored_options`).
    """
    parameters = inspect.signature(owner).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return dict(options)
    ignored = ignored_options()
    unknown = [option for option in options if option not in parameters and option not in ignored]
    if unknown:
        named = f"option{'s' if len(unknown) > 1 else ''} {', '.join(map(repr, unknown))}"
        raise LitPWMError(
            f"A checkpoint holds the {named} of {name}, which the class does not have: it was written by another "
            f"version of the class. Use that version; or, if the network is the same without, pass over what is "
            f"unknown with `--ignore-options {','.join(map(str, unknown))}` on the command line, or "
            f"`ignore_options={unknown!r}` in Python."
        )
    return {option: value for option, value in options.items() if option in parameters}


def known_class(path: str) -> type | None:
    """The class of a path in a checkpoint or config, where a file is let name it and there is one; else None."""
    found = trusted_module(path)
    return None if found is None else _class_in(*found)


def _class_in(module: ModuleType, name: str) -> type | None:
    value: Any = module
    for part in name.split("."):
        # Not `getattr`, which would run a module's `__getattr__`.
        value = vars(value).get(part) if hasattr(value, "__dict__") else None
    return value if isinstance(value, type) else None


def named_class(path: str, kind: type[C]) -> type[C]:
    """The class of a path in a checkpoint or config.

    Raises:
        LitPWMError: the file may not name it, there is none, or it is not of `kind`.
    """
    found = trusted_module(path)
    if found is None and (start := path.partition(".")[0]) in _STUDIES:
        module, folder = path.rpartition(".")[0], "." if start == "benchmarks" else "benchmarks"
        raise LitPWMError(
            f"A checkpoint or config names the {kind.__name__} {path!r}, which belongs to a study: it lies under "
            f"benchmarks/ in the checkout of lit_pwm, and is not installed. Run in the checkout's folder with "
            f"`PYTHONPATH={folder}` and `--import {module}`, or `import {module}` in Python before it is loaded."
        )
    if found is None:
        module = path.rpartition(".")[0] or "MODULE"
        raise LitPWMError(
            f"A checkpoint or config names the {kind.__name__} {path!r}, whose module is not of lit_pwm and has not "
            f"been imported, and a file is not let import modules by itself. If you trust it, add `--import {module}` "
            f"to the command line, or `import {module}` in Python before it is loaded."
        )
    if (value := _class_in(*found)) is None:
        raise LitPWMError(
            f"A checkpoint or config names the {kind.__name__} {path!r}, but {found[0].__name__} has no class "
            f"{found[1]!r}. Use the version of the module that the checkpoint was written with."
        )
    if not issubclass(value, kind) or inspect.isabstract(value):
        raise LitPWMError(
            f"A checkpoint or config names {path!r} as {kind.__name__}, but it is no complete subclass of "
            f"{kind.__module__}.{kind.__qualname__}. Name a class that derives from it."
        )
    return value
