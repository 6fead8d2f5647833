"""Old spellings of options on the command line and in its config files (`lit_pwm.options.renamed` has the table)."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Generator, Iterator, Mapping
from typing import Any

from jsonargparse import get_loader, set_loader

from lit_pwm.cli.given import COMMAND_LINE, SECTIONS, Option, pairs_of, read_value
from lit_pwm.cli.option_owners import find_class, owners_of
from lit_pwm.options.moves import Moved
from lit_pwm.options.renamed import gathering_spellings, old_among, spelled_anew, tell

Path = tuple[str, ...]
_DEEPEST = 6
"""Options within options within options; each level's names depend on the class that the level above names."""


def renewed_options(options: list[Option]) -> list[Option]:
    """The options in their new spellings, as `given_options` gives them; each keeps its source."""
    with gathering_spellings() as spellings:
        for _ in range(_DEEPEST):
            renewed = _renewed(options, owners_of(options))
            if renewed == options:
                break
            options = renewed
    tell(spellings)
    return options


def renewed_argv(argv: list[str], options: list[Option]) -> list[str]:
    """The command line with its own options in their new spellings; configs are read anew by `renewing_configs`.

    Args:
        argv: the command line.
        options: all that it gives, of its config files too, as `given_options` gives them.
    """
    owners = owners_of(renewed_options(options))
    words = {
        id(option := Option(_path_of(name), read_value(text), COMMAND_LINE)): (option, words, name)
        for words, name, text in pairs_of(argv)
    }
    renewed = [option for option in options if option.source != COMMAND_LINE]
    renewed += [option for option, _, _ in words.values()]
    with gathering_spellings():
        for _ in range(_DEEPEST):
            renewed = _renewed(renewed, owners)
    result: list[str] = []
    for option in renewed:
        if option.source != COMMAND_LINE:
            continue
        _, kept, name = words.get(id(option), (None, [], ""))
        value = _renewed_tree(option.value, option.path, owners)
        if kept and (value == option.value or name.endswith(".help")):
            result += kept
        else:
            result += [f"--{option.name}", value if isinstance(value, str) else json.dumps(value)]
    return result


def _path_of(name: str) -> Path:
    return tuple(part for part in name.removesuffix("+").split(".") if part != "init_args")


@contextlib.contextmanager
def renewing_configs(options: list[Option]) -> Generator[None, None, None]:
    """Within the block, the parser reads config files with their options in the new spellings; `options` as above."""
    owners, read = owners_of(options), get_loader("yaml")

    def load(text: str) -> object:
        content = read(text)
        if not isinstance(content, Mapping) or not set(SECTIONS) & set(content):
            return content
        sections = {name: _renewed_tree(content[name], (name,), owners) for name in SECTIONS if name in content}
        return {**content, **sections}

    set_loader("yaml", load)
    try:
        yield
    finally:
        set_loader("yaml", read)


def _renewed(options: list[Option], owners: Mapping[Path, type | None]) -> list[Option]:
    """Options with those that moved in their new spellings, one level of classes within classes at a time.

    Those that have become one object are moved together, wherever they were given, to where the last of them was.
    """
    groups: dict[object, list[Option]] = {}
    taken: dict[int, tuple[object, Path]] = {}
    for option in options:
        if (found := _old_within(option, owners)) is not None:
            above, row = found
            key = (above, row) if len(row.old) > 1 else id(option)
            groups.setdefault(key, []).append(option)
            taken[id(option)] = key, above
    result: list[Option] = []
    for option in options:
        if id(option) not in taken:
            result.append(option)
        elif option is groups[taken[id(option)][0]][-1]:
            key, above = taken[id(option)]
            result += _moved_together(groups[key], above, owners[above])
    return result


def _old_within(option: Option, owners: Mapping[Path, type | None]) -> tuple[Path, Moved] | None:
    """The path of the class whose option has moved, if `option` is one or is within one, and how."""
    for depth in range(1, len(option.path)):
        name = option.path[depth]
        given = {name: _nested(option.path[depth + 1 :], option.value)}
        if rows := old_among(owners.get(option.path[:depth]), given):
            return option.path[:depth], rows[name]
    return None


def _moved_together(group: list[Option], above: Path, owner: type | None) -> list[Option]:
    given: dict[str, Any] = {}
    for option in group:
        *within, last = option.path[len(above) :]
        place = given
        for part in within:
            place = place.setdefault(part, {})
        place[last] = option.value
    leaves = _leaves(spelled_anew(owner, given), [option.value for option in group])
    return [Option((*above, *path), value, group[-1].source) for path, value in leaves]


def _nested(path: Path, value: object) -> object:
    for part in reversed(path):
        value = {part: value}
    return value


def _leaves(tree: Mapping[str, object], given: list[object], path: Path = ()) -> Iterator[tuple[Path, object]]:
    """What a tree of options holds, down to plain values and to values that were given, which stay whole."""
    for name, value in tree.items():
        here = path if name == "init_args" else (*path, name)
        if isinstance(value, Mapping) and value and not any(value is one for one in given):
            yield from _leaves(value, given, here)
        else:
            yield here, value


def _renewed_tree(tree: object, path: Path, owners: Mapping[Path, type | None]) -> object:
    """A section of a config in its new spellings: those of its class, and those of the objects within."""
    if not isinstance(tree, Mapping):
        return tree
    owner = find_class(tree["class_path"]) if "class_path" in tree else owners.get(path)
    wrapped = isinstance(tree.get("init_args"), Mapping)
    options = tree["init_args"] if wrapped else {key: value for key, value in tree.items() if key != "class_path"}
    renewed = {
        key: _renewed_tree(value, (*path, str(key)), owners) for key, value in spelled_anew(owner, options).items()
    }
    if wrapped:
        return {**tree, "init_args": renewed}
    return {key: value for key, value in tree.items() if key == "class_path"} | renewed
