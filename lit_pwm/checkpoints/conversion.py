"""Files of one format made from those of another."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lit_pwm.checkpoints.formats.base import FOREIGN_KEY, Format, TaskNames, notice
from lit_pwm.checkpoints.formats.format_registry import format_named, read_any
from lit_pwm.checkpoints.native import description_of
from lit_pwm.checkpoints.reading import first_line
from lit_pwm.checkpoints.references import REFERENCE_KEY
from lit_pwm.checkpoints.writing import write_tensors
from lit_pwm.errors import LitPWMError
from lit_pwm.paths import absolute, is_url
from lit_pwm.runtime.atomic import replacing_part

_OF_TRAINING = ("optimizer_states", "lr_schedulers", "loops", "callbacks")


def convert(
    source: str | Path,
    target_format: str,
    out: str | Path,
    tasks: TaskNames | None = None,
    partial: bool = False,
    weights_only: bool = False,
) -> Path:
    """Write a checkpoint as a file of another format.

    A file of another format that is converted to `native` and back is the same again: keys, order, types, shapes and
    bits. What the target lacks is folded into first layers (`lit_pwm.checkpoints.formats.folding`).

    Args:
        source: a checkpoint of any format that is read.
        target_format: the name of a format, see `lit_pwm.checkpoints.formats.FORMATS`.
        out: the file to write; one that is there is replaced when the new one is whole.
        tasks: names of the tasks in `source`, where it does not say them.
        partial: leave out optional parts of the target's that the source does not hold.
        weights_only: leave out what only a run that goes on needs, of which files of other formats hold nothing.

    Returns:
        Where the file is.

    Raises:
        LitPWMError: the source cannot be read, the target cannot hold it, or the file cannot be written.
    """
    target, place = format_named(target_format), absolute(out)
    if place.exists() and not is_url(source) and place.samefile(absolute(source)):
        raise LitPWMError(
            f"The converted checkpoint would take the place of {str(place)!r}, which it is made from. Name another "
            f"file."
        )
    native = read_any(source, tasks)
    description = description_of(native, source)
    description.pop(REFERENCE_KEY, None)  # the world model is in the file now
    if weights_only:
        native = {key: value for key, value in native.items() if key not in _OF_TRAINING}
    try:
        content = target.write(native, source, partial)
        left = _left_out(native, content, target)
    except LitPWMError:
        raise
    except Exception as error:  # a damaged file may hold anything beside its description
        raise LitPWMError(
            f"The checkpoint {str(source)!r} cannot be converted ({type(error).__name__}: {first_line(error)[:200]}): "
            f"it holds something else than its format says. Use a checkpoint as a run or a conversion wrote it."
        ) from error
    if native.get("optimizer_states") and target.name != "native":
        notice(f"The states of the optimizers in {source} are not converted: no other format could go on with them.")
    if description["kind"] == "policy" and target.name != "native" and "actor" not in content:
        notice(f"{_named(target)} holds a world model alone: the policy of {source} is left out.")
    if left:
        notice(f"{_named(target)} has no place for {', '.join(left)} of {source}.")
    with replacing_part(place, "The converted checkpoint") as beside:
        write_tensors(content, beside)
    return place


def _left_out(native: Mapping[str, Any], content: Mapping[str, Any], target: Format) -> list[str]:
    """Which parts of another format's file, that were carried, a file of this one does not hold."""
    foreign = native.get(FOREIGN_KEY) or {}
    if target.name == "native" or foreign.get("format") in (None, target.name, *target.takes_over):
        return []
    return [part for part in dict.fromkeys(_part(key) for key in foreign["carried"]) if not _holds(content, part)]


def _named(target: Format) -> str:
    return target.title[:1].upper() + target.title[1:]


def _part(key: object) -> str:
    return str(key).partition(".")[0]


def _holds(content: object, part: str) -> bool:
    """Whether a key of a file's content, at its top or one level below, is of this part."""
    levels = [content, *content.values()] if isinstance(content, dict) else []
    return any(_part(key) == part for level in levels if isinstance(level, dict) for key in level)
