"""Files of one format made from those of another."""

from __future__ import annotations

from pathlib import Path

from lit_pwm.checkpoints.formats.base import FOREIGN_KEY, TaskNames, notice
from lit_pwm.checkpoints.formats.format_registry import format_named, read_any
from lit_pwm.checkpoints.native import description_of
from lit_pwm.checkpoints.writing import write_tensors
from lit_pwm.errors import LitPWMError
from lit_pwm.paths import absolute, is_url
from lit_pwm.runtime.atomic import replacing_part


def convert(
    source: str | Path, target_format: str, out: str | Path, tasks: TaskNames | None = None, partial: bool = False
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
    description_of(native, source)
    content = target.write(native, source, partial)
    if native.get("optimizer_states") and target.name != "native":
        notice(f"The states of the optimizers in {source} are not converted: no other format could go on with them.")
    if (
        target.name != "native"
        and (brought := (native.get(FOREIGN_KEY) or {}).get("format"))
        and brought not in (target.name, *target.takes_over)
    ):
        carried = native[FOREIGN_KEY]["carried"]
        if left := [part for part in dict.fromkeys(_part(key) for key in carried) if not _holds(content, part)]:
            notice(f"{target.title[:1].upper()}{target.title[1:]} has no place for {', '.join(left)} of {source}.")
    with replacing_part(place, "The converted checkpoint") as beside:
        write_tensors(content, beside)
    return place


def _part(key: object) -> str:
    return str(key).partition(".")[0]


def _holds(content: object, part: str) -> bool:
    """Whether a key of a file's content, at its top or one level below, is of this part."""
    levels = [content, *content.values()] if isinstance(content, dict) else []
    return any(_part(key) == part for level in levels if isinstance(level, dict) for key in level)
