"""What is known of a cell that ran: its `cell.json`, written when it ends."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from lit_pwm.errors import LitPWMError
from lit_pwm.experiments.own_folders import MARK, make_own
from lit_pwm.experiments.sweep.cells import Cell
from lit_pwm.runtime.atomic import replacing

CELL = "cell.json"
LOG = "log.txt"
FORMAT_VERSION = 1


@dataclass(frozen=True)
class CellState:
    """A cell that ended.

    Attributes:
        status: `finished`, or `failed` when its command did not exit with 0.
        exit_code: of its command; None where it could not be started.
        command: the whole command line that ran.
        arguments: the command line with `$OUT` for the sweep's folder, as compared.
        fingerprint: of the work, see `Cell`.
        configs: name of each config file → a digest of its content.
        labels: axis → label.
        started: when, in UTC, ISO 8601.
        seconds: wall-clock of the command.
        versions: of Python and the packages that bear on the numbers.
    """

    status: Literal["finished", "failed"]
    exit_code: int | None
    command: list[str]
    arguments: list[str]
    fingerprint: str
    configs: Mapping[str, str]
    labels: Mapping[str, str]
    started: str
    seconds: float
    versions: Mapping[str, str]


def write_state(folder: Path, state: CellState) -> None:
    """Write a cell's state, whole or not at all."""
    with replacing(folder / CELL, "The state of a sweep's cell") as beside:
        beside.write_text(json.dumps({"format": FORMAT_VERSION} | asdict(state), indent=1) + "\n", encoding="utf-8")


def read_state(folder: Path) -> CellState | None:
    """A cell's state; None where it has not ended, or its file is of another format."""
    try:
        if not (folder / CELL).is_file():
            return None
        found = json.loads((folder / CELL).read_text(encoding="utf-8"))
        if found.pop("format") != FORMAT_VERSION:
            return None
        return CellState(**found)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None


def changed_since(cells: Iterable[Cell], out: Path) -> list[tuple[Cell, str]]:
    """Finished cells whose work is no longer the sweep's, each with what is different."""
    changed = []
    for cell in cells:
        state = read_state(cell.folder(out))
        if state is not None and state.status == "finished" and state.fingerprint != cell.fingerprint:
            changed.append((cell, _difference(cell, state)))
    return changed


def refuse_changed(changed: list[tuple[Cell, str]], out: Path) -> None:
    """Refuse to mix results of different commands in one folder.

    Raises:
        LitPWMError: there are any.
    """
    if changed:
        shown = "; ".join(f"{cell.key}: {why}" for cell, why in changed[:3])
        raise LitPWMError(
            f"{len(changed)} finished cells in {str(out)!r} were made by other commands than the sweep has now ({shown}"
            f"{'; …' if len(changed) > 3 else ''}). Give another folder with --out to keep them, or --rerun-changed to "
            f"delete their results and run them anew."
        )


@dataclass(frozen=True)
class Begun:
    """What is known of a cell that was begun.

    Attributes:
        fingerprint: of its work.
        seconds: wall-clock that it has had.
    """

    fingerprint: str
    seconds: float = 0.0


def read_begun(folder: Path) -> Begun | None:
    """What a cell was begun with; None where none was, or its file is of another format."""
    try:
        if not (folder / MARK).is_file():
            return None
        return Begun(**json.loads((folder / MARK).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, RecursionError):
        return None


def write_begun(folder: Path, begun: Begun) -> None:
    """Say what a cell is begun with, in the file that also marks its folder as one that the sweep made."""
    with replacing(folder / MARK, "The mark of a sweep's cell") as beside:
        beside.write_text(json.dumps(asdict(begun)), encoding="utf-8")


def empty(folder: Path) -> None:
    """Make a cell's folder anew.

    Raises:
        LitPWMError: there is a folder that no sweep made.
    """
    make_own(folder, known_by=(CELL,))


def was_interrupted(state: CellState | None) -> bool:
    """Whether a cell was cut off, by a signal or with all of its sweep, rather than failed by itself."""
    return state is None or (
        state.status == "failed" and state.exit_code is not None and (state.exit_code < 0 or state.exit_code >= 128)
    )


def last_lines(folder: Path, number: int = 8) -> list[str]:
    """The last lines of a cell's log that say something."""
    try:
        text = (folder / LOG).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    return [line for line in text.splitlines() if line.strip()][-number:]


def _difference(cell: Cell, state: CellState) -> str:
    then, now = state.arguments, list(cell.arguments)
    for old, new in zip(then, now, strict=False):
        if old != new:
            return f"{old!r} then, {new!r} now"
    if len(then) != len(now):
        return f"{len(then)} arguments then, {len(now)} now"
    for name, digest in cell.configs.items():
        if state.configs.get(name) != digest:
            return f"the content of {name} changed"
    return f"a cell it needs changed ({', '.join(cell.needs)})"
