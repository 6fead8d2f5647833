"""The entries of a sweep file as dataclasses, which jsonargparse reads."""

from __future__ import annotations

import argparse
import dataclasses
import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from jsonargparse import ArgumentParser
from jsonargparse.typing import register_type

from lit_pwm.errors import LitPWMError, did_you_mean


class Text(str):
    """A single value of the file, as commands get it."""

    __slots__ = ()


def as_text(value: object) -> Text:
    """A single value as commands get it.

    Raises:
        ValueError: it is a list or a mapping.
    """
    if isinstance(value, (list, dict)):
        raise ValueError("a single value")
    return Text("null" if value is None else value)


register_type(Text, serializer=str, deserializer=as_text)


@dataclass(frozen=True)
class StageEntry:
    """A stage: the command line of its cells, and the axes that they run over."""

    run: list[Text]
    over: list[Text] = field(default_factory=list)


@dataclass(frozen=True)
class RecordEntry:
    """What records are made of: label → stage that evaluates, the stages that train, task → return that finds it."""

    returns: dict[str, Text]
    world_model: Text | None = None
    policy: Text | None = None
    discovery: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class SweepEntry:
    """The whole file; each stage is a `StageEntry`, and the record a `RecordEntry`."""

    stages: dict[str, Any]
    axes: dict[str, dict[str, Text] | list[Text]] = field(default_factory=dict)
    variables: dict[str, Text] = field(default_factory=dict)
    name: Text | None = None
    record: dict[str, Any] | None = None


Entry = TypeVar("Entry", SweepEntry, StageEntry, RecordEntry)
_KINDS = {"dict": "a mapping", "list": "a list", "float": "a number"}


def read_entry(kind: type[Entry], found: object, source: str, place: str = "", whose: str = "") -> Entry:
    """An entry from what YAML has read.

    Args:
        kind: of the entry.
        found: what is there.
        source: the file, to begin a sentence with.
        place: what is put before a key's name, such as `"record."`.
        whose: what is put behind it, such as `" of the stage 'train'"`.

    Raises:
        LitPWMError: it is no mapping, has an unknown key, lacks one, or a value is of another kind than it should be.
    """
    names = [entry.name for entry in dataclasses.fields(kind)]
    where = whose.removeprefix(" of ") or place.rstrip(".") or "the file"
    if not isinstance(found, Mapping):
        shown = _shown(found) if place or whose else _kind(found)
        raise LitPWMError(f"{source} has {shown} where {where} should be a mapping of {', '.join(names)}.")
    for key in found:
        if key not in names:
            raise LitPWMError(
                f"{source} has the unknown key {f'{place}{key}'!r}{whose}. {did_you_mean(str(key), names)}"
            )
    try:
        return kind(**_parser(kind).parse_object(dict(found)).as_dict())
    except argparse.ArgumentError as error:
        raise LitPWMError(f"{source} {_reason(str(error), found, place, whose)}") from error


@functools.cache
def _parser(kind: type) -> ArgumentParser:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(kind)
    return parser


def _reason(said: str, found: Mapping[str, object], place: str, whose: str) -> str:
    """What jsonargparse says, as the end of a sentence and the next."""
    if (lacking := re.search(r"required: (\w+)", said)) is not None:
        return f"has no `{place}{lacking[1]}`{whose}. Write it."
    key = re.search(r'Parser key "(\w+)"', said)
    if key is None:
        return f"is not accepted: {' '.join(said.split())}. Mend the file."
    wanted = [_KINDS[name] for name in re.findall(r"Expected a <class '(\w+)'>", said) if name in _KINDS]
    wanted += ["a single value in each place"] if "Not of type Text" in said else []
    should = " or ".join(dict.fromkeys(wanted)) or " ".join(said.split())
    return f"has {_shown(found[key[1]])} for `{place}{key[1]}`{whose}, where there should be {should}. Mend it there."


def _kind(value: object) -> str:
    """What a value is, without its content: a file that is no sweep may be one that nobody should be shown."""
    return {type(None): "nothing", list: "a list", dict: "a mapping", str: "a text"}.get(type(value), "a single value")


def _shown(value: object) -> str:
    kind = {type(None): "nothing", list: "the list", dict: "the mapping", str: "the text"}.get(type(value), "the value")
    return kind if value is None else f"{kind} {repr(value)[:80]}"
