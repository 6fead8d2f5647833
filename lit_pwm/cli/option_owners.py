"""Which class each option is for, what its hint makes of it, and which classes a name may mean."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
from collections.abc import Callable, Iterable
from typing import Any, get_args, get_origin

import lightning.pytorch.callbacks
import lightning.pytorch.loggers
from lightning.pytorch import Trainer

import callbacks
import datamodules
import lit_pwm
import lit_pwm.models
from lit_pwm.cli.given import Option
from lit_pwm.options import hints_of

Owners = dict[tuple[str, ...], type | None]
HOMES = (lit_pwm, lit_pwm.models, datamodules, callbacks, lightning.pytorch.callbacks, lightning.pytorch.loggers)
"""Where the classes are that a config may name without their module."""
_PLAIN = ("builtins", "types", "datetime", "typing")


def owners_of(options: list[Option]) -> Owners:
    """The class whose options stand at each path, by the last `class_path` that was given there."""
    owners: Owners = {("trainer",): Trainer, ("data",): datamodules.MultitaskDataModule}
    for option in options:
        path, value = option.path, option.value
        if path[-1] == "class_path":
            owners[path[:-1]] = find_class(value)
    for option in options:  # a component may be named without `class_path`, or be a default
        for length in range(2, len(option.path) + 1):
            path = option.path[:length]
            above = owners.get(path[:-1])
            if path not in owners and path[-1] != "class_path" and above is not None:
                default = inspect.signature(above.__init__).parameters.get(path[-1])
                named = find_class(option.value) if option.path == path and takes_class(above, path[-1]) else None
                settings = _settings(above, path[-1])
                if settings is not None and _is_mapping(above, path[-1]):  # whose names are the user's
                    owners.update({option.path[: length + 1]: settings} if option.path[length:] else {})
                    continue
                if named is not None or settings is not None:
                    owners[path] = named or settings
                elif default is not None and isinstance(default.default, type):
                    owners[path] = default.default
    return owners


def _settings(owner: type, name: str) -> type | None:
    """The dataclass that an option is, whose fields are options by themselves."""
    found = (one for one in parts_of(hints_of(owner.__init__).get(name)) if isinstance(one, type))
    return next((one for one in found if dataclasses.is_dataclass(one)), None)


def _is_mapping(owner: type, name: str) -> bool:
    hint = hints_of(owner.__init__).get(name)
    return any(get_origin(one) is dict for one in (hint, *get_args(hint)))


def find_class(name: Any) -> type | None:
    """The class of a path such as `lit_pwm.models.MLPDynamics`, or of its last part where it is one of ours."""
    if not isinstance(name, str):
        return None
    module, _, last = name.rpartition(".")
    homes = [importlib.import_module(module)] if module and can_import(module) else []
    if not module:
        homes = list(HOMES)
    found = next((getattr(home, last) for home in homes if hasattr(home, last)), None)
    return found if isinstance(found, type) else None


def can_import(module: str) -> bool:
    """Whether there is a module of this name that can be imported."""
    try:
        importlib.import_module(module)
    except Exception:  # a user's module may fail in any way; that it cannot be imported is what counts
        return False
    return True


def classes_of(homes: Iterable[Any], kind: type | None) -> list[str]:
    """Names of the classes of a kind that are to be had from some modules."""
    names = {name: getattr(home, name, None) for home in homes for name in getattr(home, "__all__", dir(home))}
    return [name for name, one in names.items() if isinstance(one, type) and issubclass(one, kind or object)]


def takes_class(owner: type, name: str) -> bool:
    """Whether an option is a class, a factory of one, or an object: named by a class path, and by no other text."""
    found = parts_of(hints_of(owner.__init__).get(name))
    return any(map(_made, found)) and str not in found


def parts_of(hint: Any) -> list[Any]:
    """The hints that unions and lists are made of."""
    if get_origin(hint) is Callable or not get_args(hint):
        return [hint]
    return [one for part in get_args(hint) for one in parts_of(part)]


def _made(hint: Any) -> type | None:
    """The class of the objects that are made for a hint, of a factory or of a class that is no plain value."""
    made = get_args(hint)[-1] if get_origin(hint) is Callable and get_args(hint) else hint
    return made if isinstance(made, type) and made.__module__ not in _PLAIN else None


def kind_of(owner: type | None, name: str) -> type | None:
    """The class of what an option's factory makes, where its type hint says."""
    found = [] if owner is None else parts_of(hints_of(owner.__init__).get(name))
    return next((made for hint in found if (made := _made(hint)) is not None), None)


def names_of(owner: type) -> set[str]:
    """The options of a class, and of those above it to which it passes on what it does not name itself."""
    parameters = inspect.signature(owner.__init__).parameters.values()
    own = {one.name for one in parameters if one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD)} - {"self"}
    if any(one.kind is one.VAR_KEYWORD for one in parameters):
        own |= {name for base in owner.__mro__[1:] if base is not object for name in names_of(base)}
    return own
