"""How many bytes a sweep may take."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from lit_pwm.experiments.pruning import Keeping, plan_pruning
from lit_pwm.experiments.sweep.cells import Cell
from lit_pwm.experiments.sweep.state import read_state


def keep_within(budget: int, cells: Mapping[str, Cell], out: Path) -> int:
    """Delete checkpoints that are neither best nor last until a sweep is below its budget.

    Of finished cells alone, and only where all cells that need them have finished too: a command may name any file.

    Args:
        budget: bytes of all files of the sweep.
        cells: all that it has.
        out: its folder.

    Returns:
        Bytes beyond the budget that remain.
    """
    size = sum(path.lstat().st_size for path in out.rglob("*") if path.is_file() and not path.is_symlink())
    finished = {key for key, cell in cells.items() if _has_finished(cell, out)}
    awaited = {need for key, cell in cells.items() if key not in finished for need in cell.needs}
    for key, cell in cells.items():
        if size > budget and key in finished and key not in awaited:
            # Nothing runs in a cell that has finished, however young its files are.
            for found in plan_pruning(cell.folder(out), Keeping(), looks_for_runs=False).gone:
                if size > budget:
                    found.path.unlink(missing_ok=True)
                    size -= found.size
    return max(0, size - budget)


def _has_finished(cell: Cell, out: Path) -> bool:
    state = read_state(cell.folder(out))
    return state is not None and state.status == "finished" and state.fingerprint == cell.fingerprint
