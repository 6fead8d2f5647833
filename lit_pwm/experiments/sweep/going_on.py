"""Which interrupted cells go on where they were, instead of starting anew."""

from __future__ import annotations

from pathlib import Path

from lit_pwm.experiments.sweep.cells import OUT, Cell
from lit_pwm.experiments.sweep.state import read_begun, read_state, was_interrupted

_ROOT = "--trainer.default_root_dir"


def goes_on(cell: Cell, out: Path) -> bool:
    """Whether a cell that was interrupted can go on: its work is the same, and its command finds what it had done.

    Those are trainings that write under their own folder (by `--ckpt_path auto`), and collections.
    """
    folder = cell.folder(out)
    begun = read_begun(folder)
    if begun is None or begun.fingerprint != cell.fingerprint or not was_interrupted(read_state(folder)):
        return False
    if cell.arguments[0] == "collect":
        return not any(folder.glob("*.h5"))  # a finished store is never written over
    return cell.arguments[0] == "fit" and _own_root(cell)


def further(cell: Cell) -> list[str]:
    """What is added to the command of a cell that goes on."""
    given = any(argument.partition("=")[0] == "--ckpt_path" for argument in cell.arguments)
    return ["--ckpt_path", "auto"] if cell.arguments[0] == "fit" and not given else []


def _own_root(cell: Cell) -> bool:
    own = f"{OUT}/{cell.key}"
    for place, argument in enumerate(cell.arguments):
        option, equals, value = argument.partition("=")
        if option == _ROOT:
            root = value if equals else "".join(cell.arguments[place + 1 : place + 2])
            return root == own or root.startswith(f"{own}/")
    return False
