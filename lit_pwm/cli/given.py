"""What a Trainer verb was given: the options of its command line and of its config files, each with where it stands."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from lit_pwm.errors import LitPWMError

COMMAND_LINE = "on the command line"
SECTIONS = ("model", "data", "trainer")
BESIDE = ("seed_everything", "ckpt_path", "verbose")
"""What a config may hold at its top, beside the sections."""


@dataclass(frozen=True)
class Option:
    """One option as it was given.

    Attributes:
        path: its parts without `init_args`, such as `("model", "dynamics", "hidden_dim")`; a class is `class_path`,
            an entry of a list is its number, `@` and the source.
        value: as YAML reads it; the text of a command line where that is no YAML.
        source: where it stands, to be read in a sentence.
    """

    path: tuple[str, ...]
    value: Any
    source: str

    @property
    def name(self) -> str:
        """As it is written on a command line."""
        return ".".join(part.partition("@")[0] for part in self.path if part != "class_path")


def given_options(argv: list[str]) -> list[Option]:
    """All options of a command line whose configs are files, in the order in which they count.

    Raises:
        LitPWMError: a config is no YAML file of options.
    """
    found: list[Option] = []
    for _, name, text in pairs_of(argv):
        if name == "config":
            found += read_config(text)
        elif name and not name.endswith(".help"):
            path = tuple(part for part in name.removesuffix("+").split(".") if part != "init_args")
            value = read_value(text)
            is_class = path[0] in SECTIONS and isinstance(value, str) and path == path[:1]
            if isinstance(value, (Mapping, list)):
                found += _flat({path[-1]: value}, COMMAND_LINE, path[:-1], ())
            else:
                found.append(Option((*path, "class_path") if is_class else path, value, COMMAND_LINE))
    return found


def pairs_of(argv: list[str]) -> Iterator[tuple[list[str], str, str]]:
    """The words of a command line in groups: of an option, with its name without dashes and its text, or of none."""
    short, position = {"-c": "--config"}, 0
    while position < len(argv):
        words = [argv[position]]
        name, equals, text = words[0].partition("=")
        position += 1
        if not name.startswith("-"):
            yield words, "", ""
            continue
        if not equals and position < len(argv) and not argv[position].startswith("--"):
            text, position = argv[position], position + 1
            words.append(text)
        yield words, short.get(name, name).removeprefix("--"), text


def read_value(text: str) -> object:
    """A text of a command line as YAML reads it; the text itself where it is no YAML."""
    with contextlib.suppress(yaml.YAMLError, ValueError):
        return yaml.safe_load(text)
    return text


class _Reader(yaml.SafeLoader):
    """Refuses a key that is written twice, of which YAML readers keep the last without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[object, object]:
        """As YAML's, of keys that differ."""
        seen: set[object] = set()
        for key, _ in node.value:
            if key.value in seen and key.tag != "tag:yaml.org,2002:merge":
                raise yaml.MarkedYAMLError(problem=f"the key {key.value!r} is there twice", problem_mark=key.start_mark)
            if isinstance(key.value, str):
                seen.add(key.value)
        return super().construct_mapping(node, deep)


def read_config(path: str) -> list[Option]:
    """The options of a config file, those of the command line's `--config`.

    Raises:
        LitPWMError: the file cannot be read, is no YAML, is empty, holds no options, or one that no section has.
    """
    try:
        content = yaml.load(Path(path).read_text("utf-8"), _Reader)
    except (yaml.YAMLError, UnicodeDecodeError, ValueError, RecursionError) as error:
        raise LitPWMError(f"The config file {path!r} is no YAML: {yaml_fault(error)}. Mend it there.") from error
    if content is None:
        raise LitPWMError(
            f"The config file {path!r} is empty, or holds nothing but comments. Write options into it, for example "
            f"`trainer: {{max_steps: 1000}}`, or leave it out."
        )
    if not isinstance(content, Mapping):
        raise LitPWMError(
            f"The config file {path!r} holds {_kind(content)} where options are expected. Write options with their "
            f"values into it, for example `trainer: {{max_steps: 1000}}`."
        )
    for section in SECTIONS:
        if section in content and content[section] is None:
            raise LitPWMError(
                f"In the config file {path!r}, {section!r} has nothing below it but comments. Indent its options below "
                f"it, or leave it out."
            )
    return list(_flat(content, f"in the config file {path!r}", (), ()))


def _flat(
    content: Mapping[object, object], source: str, path: tuple[str, ...], above: tuple[int, ...]
) -> Iterator[Option]:
    if id(content) in above:
        raise LitPWMError(f"The option {'.'.join(path)!r} {source} holds itself, by a YAML alias. Take the alias out.")
    for key, value in content.items():
        here = path if key == "init_args" else (*path, str(key))
        if isinstance(value, Mapping) and value:
            yield from _flat(value, source, here, (*above, id(content)))
        elif isinstance(value, list) and any(isinstance(entry, Mapping) and "class_path" in entry for entry in value):
            for number, entry in enumerate(value):
                if isinstance(entry, Mapping):
                    yield from _flat(entry, source, (*here, f"{number}@{source}"), (*above, id(content)))
        elif not (key == "init_args" or (len(here) == 1 and here[0] in SECTIONS and value == {})):
            is_class = here in (("model",), ("data",)) and isinstance(value, str)
            yield Option((*here, "class_path") if is_class else here, value, source)


def yaml_fault(error: Exception) -> str:
    """What is wrong with a YAML text, and where, from the reader's exception."""
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or next(iter(str(error).splitlines()), type(error).__name__)
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    return f"{problem} (line {mark.line + 1}, column {mark.column + 1})" if mark is not None else str(problem)


def _kind(value: object) -> str:
    return "a list" if isinstance(value, list) else f"the {'text' if isinstance(value, str) else 'value'} {value!r:.60}"
