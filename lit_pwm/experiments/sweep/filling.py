"""Puts values into a command's arguments, so that a value in a list stays one entry, whatever characters it has."""

from __future__ import annotations

import json
import shlex
import string
from collections.abc import Iterator, Mapping

import yaml

from lit_pwm.experiments.sweep.plan import WORDS


def placeholders(text: str) -> Iterator[str]:
    """The placeholders in a text, with what follows a colon.

    Raises:
        ValueError: braces do not match.
    """
    for _, name, specification, _ in string.Formatter().parse(text):
        if name is not None:
            yield f"{name}:{specification}" if specification else name


def words_of(argument: str, axes: Mapping[str, str]) -> list[str]:
    """The arguments that one of a stage's stands for: words of a value where it is `{AXIS:words}`, else itself.

    Args:
        argument: as it is in the file, with placeholders.
        axes: axis → the value of its label.

    Raises:
        ValueError: quotes in the value do not match.
    """
    for axis, value in axes.items():
        if argument == f"{{{axis}:{WORDS}}}":
            return shlex.split(value)
    return [argument]


def fill(text: str, values: Mapping[str, str]) -> str:
    """The argument with its placeholders replaced, and doubled braces made single.

    In an argument that is a list or a mapping of YAML (`[{folder:data}/a.h5, b.h5]`), each value is one entry or a part
    of one: where a comma or a quote in it would tear it, the whole is written as JSON.
    """
    found = list(placeholders(text))
    marks = {name: f"\ue000{number}\ue001" for number, name in enumerate(dict.fromkeys(found))}
    marked = "".join(
        literal + (marks[f"{name}:{specification}" if specification else name] if name is not None else "")
        for literal, name, specification, _ in string.Formatter().parse(text)
    )
    return put(marked, {mark: values[name] for name, mark in marks.items()})


def put(text: str, values: Mapping[str, str]) -> str:
    """The argument with these tokens replaced by their values, as `fill` does."""
    plain = _replaced(text, values)
    option, equals, body = text.partition("=") if text.startswith("--") else ("", "", text)
    if not body.lstrip().startswith(("[", "{")):
        return plain
    try:
        meant = _walk(yaml.safe_load(body), values)
    except yaml.YAMLError:
        return plain
    try:
        if yaml.safe_load(_replaced(body, values)) == meant:
            return plain
    except yaml.YAMLError:
        pass
    return f"{option}{equals}{json.dumps(meant, ensure_ascii=False)}"


def _walk(value: object, values: Mapping[str, str]) -> object:
    if isinstance(value, list):
        return [_walk(entry, values) for entry in value]
    if isinstance(value, dict):
        return {_walk(name, values): _walk(entry, values) for name, entry in value.items()}
    if not isinstance(value, str):
        return value
    if value in values:  # a number stays a number, and a list that stands alone a list
        return _alone(values[value])
    return _replaced(value, values)


def _alone(text: str) -> object:
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        return text
    listed = isinstance(value, (list, dict)) and text.lstrip().startswith(("[", "{"))
    return value if listed or isinstance(value, (bool, int, float)) else text


def _replaced(text: str, values: Mapping[str, str]) -> str:
    for token, value in values.items():
        text = text.replace(token, value)
    return text
