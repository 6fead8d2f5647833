"""Ranges of options: written in an option's type, and checked by one function.

A range is part of the type hint, so that no constructor compares its options one by one:

    def __init__(self, lr: Positive = 3e-4, betas: tuple[Beta, Beta] = (0.9, 0.999), form: Literal["a", "b"] = "a")

Components (`lit_pwm.models.component`) check the hints of their constructors by themselves, those of classes that users
derive included; other classes and functions are decorated with `checked`. Parsers of command lines see the plain types.
"""

from __future__ import annotations

import argparse
import functools
import inspect
import math
import os
import types
import typing
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from lit_pwm.errors import LitPWMError, did_you_mean

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class Range:
    """The numbers that an option may have; infinities and NaN are in no range.

    Attributes:
        least: the lowest.
        most: the highest.
        open_least: whether `least` itself is left out.
        open_most: whether `most` itself is left out.
        multiple: numbers must be multiples of this.
    """

    least: float = -math.inf
    most: float = math.inf
    open_least: bool = False
    open_most: bool = False
    multiple: int = 1

    def __contains__(self, value: float) -> bool:
        above = value > self.least if self.open_least else value >= self.least
        below = value < self.most if self.open_most else value <= self.most
        return above and below and (self.multiple == 1 or value % self.multiple == 0)

    def __str__(self) -> str:
        ends = []
        if self.least > -math.inf:
            ends.append(f"above {self.least:g}" if self.open_least else f"{self.least:g} or more")
        if self.most < math.inf:
            ends.append(f"below {_plain(self.most)}" if self.open_most else f"at most {_plain(self.most)}")
        if self.multiple != 1:
            ends.append(f"a multiple of {self.multiple}")
        return ", ".join(ends)


@dataclass(frozen=True)
class Length:
    """How many entries a sequence may have.

    Attributes:
        least: the fewest.
    """

    least: int

    def __contains__(self, value: Sequence[object]) -> bool:
        return len(value) >= self.least

    def __str__(self) -> str:
        return f"at least {self.least} entr{'y' if self.least == 1 else 'ies'}"


@dataclass(frozen=True)
class Written:
    """A text that says something: an empty one may be a variable of a shell that was never set."""

    def __contains__(self, value: str | os.PathLike[str]) -> bool:
        return bool(os.fspath(value).strip())

    def __str__(self) -> str:
        return "not empty"


Finite = Annotated[float, Range()]
Positive = Annotated[float, Range(0, open_least=True)]
NonNegative = Annotated[float, Range(0)]
Fraction = Annotated[float, Range(0, 1)]
Rate = Annotated[float, Range(0, 1, open_least=True)]
"""A fraction by which something moves; at 0 it would never move."""
Share = Annotated[float, Range(0, 1, open_most=True)]
Beta = Share
LogDeviation = Annotated[float, Range(-20, 5)]
Count = Annotated[int, Range(1)]
CountOrZero = Annotated[int, Range(0)]
Workers = Annotated[int, Range(1, 1024)]
WorkersOrNone = Annotated[int, Range(0, 1024)]
"""Processes beside this one; a slip of the finger would start them until memory ends."""
Seed = Annotated[int, Range(0, 2**32 - 1)]
File = Annotated[str, Written()]
"""The name of a file."""


def _plain(number: float) -> str:
    return str(int(number)) if float(number).is_integer() else f"{number:g}"


def check_options(owner: type | types.FunctionType, values: Mapping[str, object], name: str | None = None) -> None:
    """Make sure that options lie in the ranges of their type hints.

    Args:
        owner: the class (the hints of its constructor count) or function whose options they are.
        values: option → value; names that are no options of `owner` are passed over, so that `locals()` will do.
        name: what the owner is called in errors.

    Raises:
        LitPWMError: a value is outside its range or of another type; the message names owner, option, value and range.
    """
    function = owner.__init__ if isinstance(owner, type) else owner
    for option, hint in hints_of(function).items():
        if option in values and (accepted := refusal(hint, values[option])) is not None:
            raise LitPWMError(
                f"{name or owner.__qualname__} has {option} {_shown(values[option])}; give {accepted}."
                f"{_nearest(hint, values[option])}"
            )


def checked(function: F) -> F:
    """Decorate a constructor or a function: its options are checked (`check_options`) at each call.

    Constructors of LightningModules call `check_options` instead: Lightning's `save_hyperparameters` climbs the frames
    of constructors, and stops at a decorator's.
    """
    plain = typing.cast("types.FunctionType", function)
    signature, is_constructor = inspect.signature(function), plain.__name__ == "__init__"

    @functools.wraps(function)
    def checking(*args: object, **kwargs: object) -> object:
        try:
            given = signature.bind(*args, **kwargs).arguments
        except TypeError:
            given = {}  # the call itself says what is missing or unknown
        check_options(plain, given, type(args[0]).__qualname__ if is_constructor and args else None)
        return function(*args, **kwargs)

    return typing.cast("F", checking)


def argument(hint: object) -> Callable[[str], object]:
    """What argparse's `type` takes: reads a number of the hint's type and checks its range."""
    kind = get_args(hint)[0]

    def read(text: str) -> object:
        try:
            value = kind(text)
        except ValueError:
            value = text
        if (accepted := refusal(hint, value)) is not None:
            raise argparse.ArgumentTypeError(f"{text!r} is not accepted; give {accepted}")
        return value

    return read


@functools.lru_cache(maxsize=512)
def hints_of(function: Callable[..., object]) -> dict[str, object]:
    """Option → type hint with its ranges; hints that cannot be resolved when the program runs are left out."""
    function = inspect.unwrap(function)
    found = {}
    for option, hint in getattr(function, "__annotations__", {}).items():
        alone = types.SimpleNamespace(__annotations__={option: hint}, __globals__=getattr(function, "__globals__", {}))
        try:
            found |= get_type_hints(alone, include_extras=True)
        except (NameError, AttributeError, SyntaxError, TypeError):
            continue  # a user's class may name types that only a type checker imports
    found.pop("return", None)
    return found


def refusal(hint: object, value: object) -> str | None:
    """What is accepted, if `value` is not; None if it is. Types without ranges accept everything."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _refused_in_ranges(arguments[0], arguments[1:], value)
    if origin is Literal:
        return None if any(value == known for known in arguments) else " or ".join(map(repr, arguments))
    if origin in (Union, types.UnionType):
        refusals = [refusal(one, value) for one in arguments]
        return None if None in refusals else ", or ".join(str(refusal) for refusal in refusals)
    if origin in (tuple, list, Sequence):
        return _refused_entries(origin, arguments, value)
    if origin is dict:
        return _refused_values(arguments[1], value)
    return _refused_type(hint, value)


def _refused_in_ranges(kind: Any, ranges: Sequence[Any], value: Any) -> str | None:
    ranges = [one for one in ranges if isinstance(one, (Range, Length, Written))]
    refused = refusal(kind, value)
    if refused is None and all(value in one for one in ranges):
        return None
    described = refusal(kind, _NOTHING) or "a value"
    return ", ".join([described, *filter(None, map(str, ranges))])


def _refused_entries(origin: object, arguments: Sequence[object], value: object) -> str | None:
    fixed = origin is tuple and Ellipsis not in arguments
    kinds = arguments if fixed else arguments[:1]
    entry = next((text for kind in kinds if (text := refusal(kind, _NOTHING))), "entries")
    accepted = f"a list of {len(kinds)}, each {entry}" if fixed else f"a list, each entry {entry}"
    if isinstance(value, (str, bytes)) or not isinstance(value, Collection):
        return accepted
    if fixed and len(value) != len(kinds):
        return accepted
    pairs = zip(kinds if fixed else list(kinds) * len(value), value, strict=True)
    return accepted if any(refusal(kind, one) is not None for kind, one in pairs) else None


def _refused_values(hint: object, value: object) -> str | None:
    entry = refusal(hint, _NOTHING) or "a value"
    accepted = f"a mapping of names, each to {entry}"
    if not isinstance(value, Mapping) or not all(isinstance(name, str) for name in value):
        return accepted
    return accepted if any(refusal(hint, one) is not None for one in value.values()) else None


def _refused_type(hint: object, value: object) -> str | None:
    if hint is bool:
        return None if isinstance(value, bool) or type(value).__name__ in ("bool_", "bool") else "true or false"
    if hint is int:
        return None if isinstance(value, Integral) and not isinstance(value, bool) else "a whole number"
    if hint is float:
        real = isinstance(value, Real) and not isinstance(value, bool)
        return None if real and math.isfinite(typing.cast("float", value)) else "a number"
    if hint is str:
        return None if isinstance(value, (str, os.PathLike)) else "text"
    if hint is type(None):
        return None if value is None else "null"
    return None


_NOTHING = object()
"""Of no type that an option has, so that every hint says what it accepts."""


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _nearest(hint: object, value: object) -> str:
    known = [word for one in (hint, *get_args(hint)) if get_origin(one) is Literal for word in get_args(one)]
    return f" {did_you_mean(value, known)}" if known and isinstance(value, str) else ""
