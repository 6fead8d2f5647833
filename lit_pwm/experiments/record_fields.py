"""Reads JSON that runs have left, trusting nothing of it: its size, its numbers, its text, the kinds of its values."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lit_pwm.errors import LitPWMError

MOST_BYTES = 64 * 2**20
"""Of a record that is read; those of the largest sweeps have a thousandth of it."""

Check = Callable[[object, str], str | None]
"""Says what is wrong with a value at a place, or nothing."""

_UNSHOWABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]")


def read_json(path: Path, what: str, remedy: str) -> dict[str, Any]:
    """A JSON object from a file; numbers that are not finite are None, and characters that cannot be shown are `�`.

    Args:
        path: the file.
        what: what it should be, for errors, such as `"the record of a finished run"`.
        remedy: what to do where it is not, a sentence.

    Raises:
        LitPWMError: it cannot be read, is larger than `MOST_BYTES`, or is no JSON object.
    """
    try:
        if not path.is_file():
            raise ValueError("it is no file")
        if (size := path.stat().st_size) > MOST_BYTES:
            raise ValueError(f"it has {size / 2**20:.0f} MiB, and such a file has {MOST_BYTES // 2**20} at most")
        found = _clean(json.loads(path.read_text(encoding="utf-8"), parse_constant=lambda name: None))
        if not isinstance(found, dict):
            raise ValueError(f"it holds {_kind(found)} instead of an object")
    except (OSError, ValueError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise LitPWMError(f"{str(path)!r} is not {what} ({reason}). {remedy}") from error
    return found


def check_record(path: Path, record: object, check: Check, remedy: str) -> None:
    """Make sure that a record has what it should.

    Raises:
        LitPWMError: it does not; the message names the file, the place and what was found.
    """
    wrong = check(record, "")
    if wrong is not None:
        raise LitPWMError(f"The record {str(path)!r} {wrong}. {remedy}")


# -- checks of values -------------------------------------------------------------------------------------------------
def number(value: object, place: str) -> str | None:
    """A finite number."""
    if isinstance(value, (int, float)) and not isinstance(value, bool) and _is_finite(value):
        return None
    return _wrong(value, place, "a finite number")


def text(value: object, place: str) -> str | None:
    """A text."""
    return None if isinstance(value, str) else _wrong(value, place, "text")


def anything(value: object, place: str) -> str | None:
    """Any value."""
    return None


def maybe(check: Check) -> Check:
    """What `check` accepts, or null."""
    return lambda value, place: None if value is None else check(value, place)


def list_of(check: Check, least: int = 0) -> Check:
    """A list of at least so many entries that `check` accepts."""

    def checked(value: object, place: str) -> str | None:
        if not isinstance(value, list) or len(value) < least:
            return _wrong(value, place, f"a list{f' of {least} or more' if least else ''}")
        return _first(check(entry, f"{place}[{number}]") for number, entry in enumerate(value))

    return checked


def pair(first: Check, second: Check) -> Check:
    """A list of two entries that these accept."""

    def checked(value: Any, place: str) -> str | None:
        if not isinstance(value, list) or len(value) != 2:
            return _wrong(value, place, "a list of 2")
        return first(value[0], f"{place}[0]") or second(value[1], f"{place}[1]")

    return checked


def alike_long(check: Check, names: Sequence[str]) -> Check:
    """What `check` accepts, an object, where fields of these names are of one length."""

    def checked(value: Any, place: str) -> str | None:
        if (wrong := check(value, place)) is not None:
            return wrong
        lengths = [len(value[name]) for name in names]
        if len(set(lengths)) > 1:
            return f"has {', '.join(map(str, lengths))} entries of {', '.join(names)} at {place or 'its top'}"
        return None

    return checked


def each(check: Check, least: int = 0) -> Check:
    """An object of at least so many names whose values `check` accepts."""

    def checked(value: object, place: str) -> str | None:
        if not isinstance(value, dict) or len(value) < least:
            return _wrong(value, place, f"an object{f' of {least} or more entries' if least else ''}")
        return _first(check(entry, _below(place, name)) for name, entry in value.items())

    return checked


def fields(required: Mapping[str, Check], optional: Mapping[str, Check] | None = None) -> Check:
    """An object with these fields; others are not looked at."""

    def checked(value: object, place: str) -> str | None:
        if not isinstance(value, dict):
            return _wrong(value, place, "an object")
        for name in required:
            if name not in value:
                return f"lacks {_below(place, name)}"
        known = {**required, **(optional or {})}
        return _first(check(value[name], _below(place, name)) for name, check in known.items() if name in value)

    return checked


def _first(found: Iterable[str | None]) -> str | None:
    return next((wrong for wrong in found if wrong is not None), None)


def _below(place: str, name: str) -> str:
    return f"{place}.{name}" if place else name


def _wrong(value: object, place: str, wanted: str) -> str:
    return f"has {_kind(value)} at {place or 'its top'}, where {wanted} should be"


def _kind(value: object) -> str:
    if isinstance(value, (dict, list)):
        return f"{'an object' if isinstance(value, dict) else 'a list'} of {len(value)}"
    shown = "null" if value is None else repr(value)
    return shown if len(shown) <= 60 else f"{shown[:60]}…"


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number beyond all floats
        return False


def finite(value: object) -> object:
    """Plain values for JSON, in which numbers that are not finite are null."""
    if isinstance(value, Mapping):
        return {key: finite(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _clean(value: object) -> object:
    if isinstance(value, str):
        return _UNSHOWABLE.sub("\ufffd", value)
    if isinstance(value, list):
        return [_clean(entry) for entry in value]
    if isinstance(value, dict):
        return {_clean(name): _clean(entry) for name, entry in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
