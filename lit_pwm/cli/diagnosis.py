"""Which option given to a Trainer verb is not accepted, found by comparing all with the classes they are for."""

from __future__ import annotations

import difflib
import importlib
import inspect
from collections.abc import Iterable
from typing import Any

from lightning.pytorch import LightningDataModule, LightningModule, Trainer

import datamodules
import lit_pwm
import lit_pwm.models
from lit_pwm.cli.given import BESIDE, COMMAND_LINE, SECTIONS, Option
from lit_pwm.cli.option_owners import (
    HOMES,
    Owners,
    can_import,
    classes_of,
    find_class,
    kind_of,
    names_of,
    owners_of,
    parts_of,
    takes_class,
)
from lit_pwm.errors import did_you_mean
from lit_pwm.options import hints_of, refusal
from lit_pwm.options.moves import MOVED

_TOP: dict[str, type] = {"model": LightningModule, "data": LightningDataModule}
"""What the sections that are objects are."""
_HELP = "See `lit-pwm fit --help` for the options."


def diagnose(options: list[Option]) -> str | None:
    """What is wrong with the first option that is not accepted, as one paragraph; None where each one seems sound."""
    owners = owners_of(options)
    checks = (_wrong_section, _wrong_class, _wrong_name, _wrong_object, _wrong_value)
    found = (text for check in checks for option in options if (text := check(option, owners)))
    return next(found, None) or _missing(options, owners) or _missing_of_objects(options, owners)


def names_beside(name: str) -> list[str]:
    """The options whose last part is `name`, with the sections that they belong to."""
    owners: dict[str, Iterable[type]] = {
        "trainer": [Trainer],
        "model": [lit_pwm.WorldModelPretraining, lit_pwm.PolicyLearning],
        "data": [datamodules.MultitaskDataModule],
    }
    found = [
        f"{section}.{place}"
        for section, classes in owners.items()
        for one in classes
        for place in ([name] if name in names_of(one) else _moved_to(one, name))
    ]
    return list(dict.fromkeys(found))


def _moved_to(owner: type, name: str) -> list[str]:
    """Where an option of the class lies now that had this name."""
    rows = MOVED.get(f"{owner.__module__}.{owner.__qualname__}", ())
    return [row.shown for row in rows if name in row.old and isinstance(row.shown, str) and row.shown]


def top_level_fault(option: Option) -> str | None:
    """What to say of an option that belongs to no section, with the section that has one of its name."""
    if option.path[0] in (*SECTIONS, *BESIDE, "config", "print_config", "help", "h", "version"):
        return None
    beside = names_beside(option.path[-1])
    advice = (
        f"Did you mean {' or '.join(map(repr, beside))}?"
        if beside
        else did_you_mean(option.path[0], [*SECTIONS, *BESIDE], shown=20)
    )
    return f"There is no option {option.name!r}, which was given {option.source}. {advice} {_HELP}"


def _wrong_section(option: Option, owners: Owners) -> str | None:
    """A section that is given a value of its own, where it has options or, but for the Trainer, a class."""
    section = option.path[0]
    named = option.path[1:] == ("class_path",) and isinstance(option.value, str)
    if section not in SECTIONS or not (len(option.path) == 1 or (named and section == "trainer")):
        return None
    examples = {"model": "model.optimizer.lr 1e-4", "data": "data.horizon 16", "trainer": "trainer.max_steps 1000"}
    return (
        f"The option {section!r} was given {option.value!r:.80} {option.source}, and has options of its own: write, "
        f"for example, --{examples[section]}."
    )


def _wrong_class(option: Option, owners: Owners) -> str | None:
    is_class = option.path[-1] == "class_path"
    above = owners.get(option.path[:-1])
    if not is_class and not (
        isinstance(option.value, str) and above is not None and takes_class(above, option.path[-1])
    ):
        return None
    value = option.value
    if not isinstance(value, str):
        return None
    place = option.path[:-1] if is_class else option.path
    kind = _TOP.get(place[0]) if len(place) == 1 else kind_of(owners.get(place[:-1]), place[-1])
    if (found := find_class(value)) is not None:
        if kind is None or issubclass(found, kind):
            return None
        return (
            f"The class {value!r}, given as {option.name!r} {option.source}, is no {kind.__name__}. Name a class that "
            f"derives from {kind.__module__}.{kind.__qualname__}."
        )
    module, _, last = value.rpartition(".")
    said = f"The class {value!r}, given as {option.name!r} {option.source}, cannot be imported"
    if module and not can_import(module):
        return (
            f"{said}: there is no module {module!r}, or importing it fails. Run from the folder that holds it, install "
            f"it, or put its folder on PYTHONPATH. See `lit-pwm fit --help` for the classes that there are."
        )
    known = classes_of([importlib.import_module(module)] if module else HOMES, kind) or classes_of(HOMES, kind)
    return f"{said}: there is none of this name. {did_you_mean(last, known)}"


def _wrong_name(option: Option, owners: Owners) -> str | None:
    if (fault := top_level_fault(option)) is not None:
        return fault
    for length in range(2, len(option.path) + 1):
        owner, name = owners.get(option.path[: length - 1]), option.path[length - 1]
        if owner is None or name == "class_path" or "@" in name:  # an entry of a list that was replaced by an object
            continue
        known = names_of(owner)
        if name not in known:
            beside = [other for other in names_beside(name) if other != option.name]
            advice = f"Did you mean {beside[0]!r}?" if beside else _nearest(option, name, owner, sorted(known))
            return (
                f"There is no option {option.name!r}, which was given {option.source}: {owner.__name__} has none of "
                f"this name. {advice} {_HELP}"
            )
    return None


def _nearest(option: Option, name: str, owner: type, known: list[str]) -> str:
    """Advice by the options of a class that are nearest, those within its groups too."""
    within = {old: row.shown for row in MOVED.get(f"{owner.__module__}.{owner.__qualname__}", ()) for old in row.old}
    near = difflib.get_close_matches(name, [*known, *within], n=1, cutoff=0.7)
    if near and near[0] not in known and isinstance(place := within[near[0]], str) and place:
        return f"Did you mean {option.path[0]}.{place}?"
    return did_you_mean(name, known, shown=8)


def _wrong_object(option: Option, owners: Owners) -> str | None:
    """A number, or a mapping that names no class, where a class is named; texts by themselves are `_wrong_class`'s."""
    owner, name, value = owners.get(option.path[:-1]), option.path[-1], option.value
    if owner is None or isinstance(value, str) or not takes_class(owner, name):
        return None
    hint = hints_of(owner.__init__).get(name)
    if value is None and type(None) in parts_of(hint):
        return None
    plain = tuple(one for one in parts_of(hint) if one in (bool, int, float, str))
    for entry in value if isinstance(value, list) else [value]:
        if isinstance(entry, plain) or (isinstance(entry, str) and find_class(entry) is not None):
            continue
        if isinstance(entry, dict) and "class_path" in entry:
            continue
        kind = kind_of(owner, name)
        return (
            f"The option {option.name!r} was given {entry!r:.80} {option.source}, where the name of a class is "
            f"expected. {did_you_mean(str(entry), classes_of(HOMES, kind), shown=8)} With options of its own it is "
            f"written {{class_path: NAME, init_args: {{OPTION: VALUE}}}}, and several in a list."
        )
    return None


def _wrong_value(option: Option, owners: Owners) -> str | None:
    owner = owners.get(option.path[:-1])
    if owner is None or option.path[-1] == "class_path":
        return None
    hint = hints_of(owner.__init__).get(option.path[-1])
    accepted = None if hint is None else refusal(hint, option.value)
    if hint is None or accepted is None or _is_a_number_in_text(hint, option):
        return None
    if option.value is None and option.source == COMMAND_LINE:
        return f"The option {option.name!r} stands {option.source} without a value; give {accepted}."
    entry = ""
    if not isinstance(option.value, (list, dict)) and refusal(hint, [option.value]) is None:
        entry = f" Write [{option.value}]."
    return (
        f"The option {option.name!r} was given the value {option.value!r} {option.source}, which is not of its type; "
        f"give {accepted}.{entry} See `lit-pwm fit --help` for the types."
    )


def _missing(options: list[Option], owners: Owners) -> str | None:
    given = {option.path for option in options}
    if ("model",) not in owners:
        return (
            "No model is named. Stack a config that does, such as `--config configs/pretrain.yaml` or `--config "
            "configs/policy_learning.yaml`, or write `--model lit_pwm.WorldModelPretraining`."
        )
    for section in SECTIONS[:2]:
        if (owner := owners.get((section,))) is None:
            continue
        parameters = dict(list(inspect.signature(owner.__init__).parameters.items())[1:])
        for name, parameter in parameters.items():
            needed = parameter.default is parameter.empty and parameter.kind is parameter.POSITIONAL_OR_KEYWORD
            if needed and (section, name) not in given:
                option = f"{section}.{name}"
                return f"The option {option!r} is missing, which {owner.__name__} needs. Give --{option}."
    return None


def _missing_of_objects(options: list[Option], owners: Owners) -> str | None:
    """What a callback or a logger needs and was not given; the leading options of factories are given later."""
    given = {option.path for option in options}
    for path, owner in owners.items():
        if path[0] != "trainer" or len(path) == 1 or owner is None:
            continue
        parameters = list(inspect.signature(owner.__init__).parameters.items())[1:]
        for name, parameter in parameters:
            needed = parameter.default is parameter.empty and parameter.kind is parameter.POSITIONAL_OR_KEYWORD
            if needed and (*path, name) not in given:
                option = Option((*path, name), None, "")
                return f"The option {option.name!r} is missing, which {owner.__name__} needs. Give --{option.name}."
    return None


def _is_a_number_in_text(hint: Any, option: Option) -> bool:
    """Whether it is a number that YAML takes for text, such as 1e-3, and parsers do not."""
    try:
        return isinstance(option.value, str) and refusal(hint, float(option.value)) is None
    except ValueError:
        return False
