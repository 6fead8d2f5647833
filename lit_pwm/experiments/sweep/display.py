"""What one sees of a sweep: a bar with the measured remaining time, or a line for each cell, and the summary."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from lit_pwm.experiments.report.stages import duration
from lit_pwm.experiments.sweep.cells import Cell
from lit_pwm.experiments.sweep.state import LOG, last_lines

if TYPE_CHECKING:
    from lit_pwm.experiments.sweep.launch import Outcome


class Display:
    """Shows cells as they start and end.

    The remaining time is the mean time of each stage's cells, of earlier runs of the sweep too, over the workers; it is
    shown once a cell of every stage that is left has been timed.

    Args:
        cells: all cells of the sweep.
        workers: processes at a time.
        console: where to.
    """

    def __init__(self, cells: Iterable[Cell], workers: int, console: Console) -> None:
        self.console, self.workers = console, workers
        self._left = Counter(cell.stage for cell in cells)
        self._total = self._left.total()
        self._seconds: dict[str, list[float]] = {}
        self._started: dict[str, float] = {}
        self._stage_of = {cell.key: cell.stage for cell in cells}
        self._bar = Progress(
            TextColumn("cells"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[remaining]}"),
            TextColumn("[dim]{task.fields[now]}"),
            console=console,
            disable=not console.is_terminal,
        )
        self._row = self._bar.add_task("", total=self._total, remaining="", now="")

    def __enter__(self) -> Display:
        done = self._total - self._left.total()
        if done:
            self.console.print(f"{done} of {self._total} cells are finished already.", highlight=False, soft_wrap=True)
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._bar.stop()
        if kind is not None and self._started:
            running = ", ".join(escape(key) for key in self._started)
            self.console.print(
                f"Stopped; these cells were running and are taken up next time: {running}.",
                highlight=False,
                soft_wrap=True,
            )

    def skipped(self, cell: Cell, seconds: float) -> None:
        """The cell was finished before, in so many seconds."""
        self._left[cell.stage] -= 1
        self._seconds.setdefault(cell.stage, []).append(seconds)

    def started(self, cell: Cell) -> None:
        """The cell runs."""
        self._started[cell.key] = time.monotonic()
        self.tick()

    def finished(self, cell: Cell, seconds: float) -> None:
        """The cell's command exited with 0."""
        self._seconds.setdefault(cell.stage, []).append(seconds)
        self._ended(cell, f"finished in {duration(seconds)}")

    def failed(self, cell: Cell, folder: Path) -> None:
        """The cell's command could not be run, or exited with another code."""
        said = last_lines(folder, 1)
        self._ended(cell, f"[red]failed[/red]: {escape(said[0]) if said else 'it said nothing'}", always=True)

    def blocked(self, cell: Cell) -> None:
        """The cell cannot run, because one that it needs failed."""
        self._ended(cell, "blocked by a failed cell")

    def tick(self) -> None:
        """Refresh the bar."""
        if not self._bar.disable:
            now = ", ".join(escape(key) for key in self._started)
            self._bar.update(
                self._row, completed=self._total - self._left.total(), remaining=self._remaining(), now=now
            )

    def _ended(self, cell: Cell, how: str, always: bool = False) -> None:
        self._left[cell.stage] -= 1
        self._started.pop(cell.key, None)
        if always or self._bar.disable:
            done = self._total - self._left.total()
            remaining = self._remaining()
            line = f"[{done}/{self._total}] {cell.key}: "
            self.console.print(
                f"{escape(line)}{how}{f'; {remaining}' if remaining else ''}", highlight=False, soft_wrap=True
            )
        self.tick()

    def _remaining(self) -> str:
        left = {stage: number for stage, number in self._left.items() if number > 0}
        if not left:
            return ""
        if any(stage not in self._seconds for stage in left):
            return "remaining time not known yet"
        mean = {stage: sum(self._seconds[stage]) / len(self._seconds[stage]) for stage in left}
        seconds = sum(number * mean[stage] for stage, number in left.items())
        now = time.monotonic()
        for key, since in self._started.items():
            seconds -= min(now - since, mean.get(self._stage_of[key], 0.0))
        return f"about {duration(seconds / self.workers)} left"


def print_outcome(outcome: Outcome, cells: Mapping[str, Cell], out: Path, console: Console) -> None:
    """Print how a sweep ended, and of each failed cell the last lines of its log."""
    for key in outcome.failed:
        folder = cells[key].folder(out)
        console.print(
            f"\n[red]failed[/red]: {escape(key)}, whose log {escape(str(folder / LOG))} ends:",
            highlight=False,
            soft_wrap=True,
        )
        for line in last_lines(folder):
            console.print(f"  {escape(line)}", highlight=False, soft_wrap=True)
    counts = {
        "finished": len(outcome.finished),
        "finished before": len(outcome.skipped),
        "failed": len(outcome.failed),
        "blocked by a failed one": len(outcome.blocked),
    }
    said = ", ".join(f"{number} {what}" for what, number in counts.items() if number)
    console.print(f"{len(cells)} cells: {said}.", highlight=False, soft_wrap=True)
