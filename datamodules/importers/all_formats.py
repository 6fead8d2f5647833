"""The formats that can be imported, and which of them some files are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from datamodules.importers.d4rl import D4RL
from datamodules.importers.importer import Importer, ImportOption
from datamodules.importers.lerobot import LeRobot
from datamodules.importers.minari import Minari
from datamodules.importers.ogbench import OGBench
from datamodules.importers.tdmpc2 import TDMPC2
from lit_pwm.errors import LitPWMError, did_you_mean

# Their modules load what they read with (torch, pyarrow) only when they read.
IMPORTERS: tuple[Importer, ...] = (TDMPC2(), Minari(), LeRobot(), D4RL(), OGBench())


def format_names() -> tuple[str, ...]:
    """Names of all formats."""
    return tuple(importer.name for importer in IMPORTERS)


def all_options() -> tuple[ImportOption, ...]:
    """The options of all formats, each once."""
    return tuple(dict.fromkeys(option for importer in IMPORTERS for option in importer.options))


def find_importer(sources: Sequence[Path], name: str | None = None) -> Importer:
    """The importer of some files or folders.

    Args:
        sources: at least one; all of one format.
        name: the format; told by the content if not given.

    Raises:
        LitPWMError: there is no such format, a source does not exist, or the sources fit none or different ones.
    """
    for source in sources:
        if not source.exists():
            raise LitPWMError(
                f"The data to import, {str(source)!r}, does not exist. Name a file or a data set's folder."
            )
    by_name = {importer.name: importer for importer in IMPORTERS}
    if name is not None:
        if name not in by_name:
            raise LitPWMError(f"The format {name!r} (--format) is not known. {did_you_mean(name, by_name)}")
        return by_name[name]
    found: dict[str, Path] = {}
    for source in sources:
        fitting = next((importer.name for importer in IMPORTERS if importer.recognises(source)), None)
        if fitting is None:
            tried = "; ".join(f"{importer.name} ({importer.title})" for importer in IMPORTERS)
            raise LitPWMError(
                f"{str(source)!r} is of no format that can be imported. Tried: {tried}. Name another file or folder, "
                f"or the format with --format, whose reader then says what does not fit."
            )
        found.setdefault(fitting, source)
    if len(found) > 1:
        listed = " and ".join(f"{str(source)!r} is {format_name}" for format_name, source in found.items())
        raise LitPWMError(f"The data to import is of different formats: {listed}. Import each into a store of its own.")
    return by_name[next(iter(found))]


def option_values(importer: Importer, given: Mapping[str, Any]) -> dict[str, Any]:
    """Values of an importer's options, by key.

    Args:
        importer: the format.
        given: what was given, by key.

    Raises:
        LitPWMError: an option was given that this format does not take.
    """
    for key in given:
        if key not in {option.key for option in importer.options}:
            takers = [other.name for other in IMPORTERS if key in {option.key for option in other.options}]
            flag = "--" + key.replace("_", "-")
            raise LitPWMError(
                f"The option {flag} is not for the format {importer.name} ({importer.title}), but for "
                f"{', '.join(takers) or 'none that there is'}. Leave it out, or name another format with --format."
            )
    return {option.key: given.get(option.key, option.default) for option in importer.options}
