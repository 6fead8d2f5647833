"""Options that have moved: old spellings are accepted wherever options are given, and the new ones are shown once.

One table says what has moved (`lit_pwm.options.moves`). All who are given options ask it by `spelled_anew`:
constructors in Python (`accepting_old_spellings`, and `AcceptsOldSpellings` for LightningModules), configs and command
lines (`lit_pwm.cli.old_spellings`), and checkpoints of older formats (`lit_pwm.checkpoints.migration`). To move an
option, add a row to the table; nothing else changes.
"""

from __future__ import annotations

import contextlib
import contextvars
import dataclasses
import functools
import inspect
import os
import sys
from collections.abc import Callable, Generator, Mapping
from typing import Any, cast

from lit_pwm.errors import LitPWMError
from lit_pwm.options.moves import MOVED, Moved, Options


def old_among(owner: type | str | None, given: Mapping[str, Any]) -> dict[str, Moved]:
    """Those of the given options that are old spellings → their rows.

    Args:
        owner: the class whose options they are, whose bases' rows count too; or the name of one that takes none of the
            old names any more; None for an unknown one, of which nothing is known to have moved.
        given: option → value.
    """
    if owner is None:
        return {}
    if isinstance(owner, str):
        rows, own = list(MOVED.get(owner, ())), frozenset[str]()
    else:
        rows = [row for base in owner.__mro__ for row in MOVED.get(f"{base.__module__}.{base.__qualname__}", ())]
        own = _own_names(owner) if rows else frozenset[str]()
    return {
        name: row
        for row in rows
        for name in row.old
        if name in given and (name not in own or row.is_old(name, given[name]))
    }


@functools.lru_cache(maxsize=512)
def _own_names(owner: type) -> frozenset[str]:
    parameters = inspect.signature(inspect.unwrap(owner.__init__)).parameters.values()
    return frozenset(one.name for one in parameters if one.kind is not one.VAR_KEYWORD)


def spelled_anew(owner: type | str | None, given: Mapping[str, Any]) -> Options:
    """Options of `owner` (as in `old_among`) with those that have moved in their new places; others are as they were.

    Raises:
        LitPWMError: an option was given in both spellings, or has a value for which there is nothing in its place.
    """
    rows = old_among(owner, given)
    if not rows:
        return dict(given)
    result, shown = {name: value for name, value in given.items() if name not in rows}, {}
    for row in dict.fromkeys(rows.values()):
        old = {name: given[name] for name in row.old if rows.get(name) is row}
        renewed = row.renew(old)
        for path, value in renewed.items():
            result = _placed(result, path.split("."), value, ", ".join(old))
        if callable(row.shown):
            shown[f"{', '.join(old)} of {_name(owner)}"] = row.shown(renewed)
        else:
            shown |= {f"{name} of {_name(owner)}": row.shown for name in old}
    tell(shown)
    return result


def _name(owner: type | str | None) -> str:
    return owner.rpartition(".")[2] if isinstance(owner, str) else cast("type", owner).__name__


def _placed(options: Any, path: list[str], value: Any, old: str) -> Any:
    """`options` with `value` at a dotted path; mappings on the way are copied or made, dataclasses replaced."""
    first, *rest = path
    if dataclasses.is_dataclass(options) and not isinstance(options, type):
        return dataclasses.replace(options, **{first: _placed_below(getattr(options, first), rest, value, old)})
    if isinstance(options, str):  # a class by its name alone
        options = {"class_path": options}
    if not isinstance(options, Mapping):
        raise LitPWMError(
            f"The old option {old!r} was given beside an object that takes its place. Give its value to the object."
        )
    if not rest and first == "class_path" and first in options:
        return dict(options)
    if not rest and first in options:
        raise LitPWMError(f"An option was given in its old spelling {old!r} and in its new one. Keep the new one.")
    return dict(options) | {first: _placed_below(options.get(first), rest, value, old)}


def _placed_below(options: Any, path: list[str], value: Any, old: str) -> Any:
    if not path:
        return value
    if isinstance(options, type):  # a class as a default: what a config would call by its path
        options = {"class_path": f"{options.__module__}.{options.__qualname__}"}
    return _placed({} if options is None else options, path, value, old)


# -- telling -------------------------------------------------------------------------------------------------------
_told: set[str] = set()
_gathered: contextvars.ContextVar[dict[str, str] | None] = contextvars.ContextVar("old_spellings", default=None)


@contextlib.contextmanager
def gathering_spellings() -> Generator[dict[str, str], None, None]:
    """Within the block nothing is said of old spellings; they are gathered, old → new, to be told all at once."""
    found: dict[str, str] = {}
    token = _gathered.set(found)
    try:
        yield found
    finally:
        _gathered.reset(token)


def tell(spellings: Mapping[str, str]) -> None:
    """Say on stderr what old spellings have become, each once in a process, and on the first rank only."""
    if (gathered := _gathered.get()) is not None:
        gathered.update(spellings)
        return
    new = {old: now for old, now in spellings.items() if old not in _told}
    _told.update(new)
    if new and os.environ.get("LOCAL_RANK", "0") == "0":
        each = [f"{old} is now {now}" if now else f"{old} does nothing any more" for old, now in new.items()]
        print(f"Old spellings of options were accepted: {'; '.join(each)}.", file=sys.stderr)


# -- constructors --------------------------------------------------------------------------------------------------
def accepting_old_spellings(constructor: Callable[..., None], owner: type | None = None) -> Callable[..., None]:
    """Decorate a constructor: options that have moved are accepted by name, of which type checkers know nothing.

    Args:
        constructor: of a class that is no LightningModule.
        owner: whose constructor it is; that of the object that is made if not given.
    """

    @functools.wraps(constructor)
    def accepting(self: Any, *args: Any, **kwargs: Any) -> Any:
        return constructor(self, *args, **spelled_anew(owner or type(self), kwargs))

    return accepting


class AcceptsOldSpellings(type):
    """Metaclass of the LightningModules: options that have moved are accepted by name.

    Their constructors are not decorated, because Lightning's `save_hyperparameters` climbs the frames of constructors
    and stops at a decorator's.
    """

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        """An object of the class."""
        return type.__call__(cls, *args, **spelled_anew(cls, kwargs))

    @property
    def __signature__(cls) -> inspect.Signature:
        """The constructor's, which `inspect` would otherwise take from `__call__`."""
        parameters = list(inspect.signature(cls.__init__).parameters.values())
        return inspect.Signature(parameters[1:])
