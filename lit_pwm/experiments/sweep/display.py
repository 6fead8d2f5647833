"""What one sees of a sweep: a bar with the measured remaining time, or a line for each cell, and the summary."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from lit_pwm.experiments.engine import Outcome, Watcher
from lit_pwm.experiments.report.wall_clock import duration
from lit_pwm.experiments.sweep.cells import Cell
from lit_pwm.experiments.sweep.state import LOG, last_lines, read_state


class Display(Watcher):
    """Shows cells as they start and end.

    The remaining time is the mean time of each stage's cells, of earlier runs of the sweep too, over the workers; it is
    shown once a cell of every stage that is left has been timed.

    Args:
        cells: all cells of the sweep, by their keys.
        out: the sweep's folder.
        workers: processes at a time.
        console: where to.
    """

    def __init__(self, cells: Mapping[str, Cell], out: Path, workers: int, console: Console) -> None:
        self.cells, self.out, self.console, self.workers = cells, out, console, workers
        self._left = Counter(cell.stage for cell in cells.values())
        self._total = self._left.total()
        self._seconds: dict[str, list[float]] = {}
        self._started: dict[str, float] = {}
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

    def skipped(self, key: str) -> None:
        """The cell was finished before."""
        self._left[self.cells[key].stage] -= 1
        self._took(key)

    def started(self, key: str) -> None:
        """The cell runs."""
        self._started[key] = time.monotonic()
        self.tick()

    def finished(self, key: str) -> None:
        """The cell's command exited with 0."""
        self._ended(key, f"finished in {duration(self._took(key))}")

    def failed(self, key: str) -> None:
        """The cell's command could not be run, or exited with another code."""
        said = last_lines(self.cells[key].folder(self.out), 1)
        self._ended(key, f"[red]failed[/red]: {escape(said[0]) if said else 'it said nothing'}", always=True)

    def blocked(self, key: str) -> None:
        """The cell cannot run, because one that it needs failed."""
        self._ended(key, "blocked by a failed cell")

    def tick(self) -> None:
        """Refresh the bar."""
        if not self._bar.disable:
            now = ", ".join(escape(key) for key in self._started)
            self._bar.update(
                self._row, completed=self._total - self._left.total(), remaining=self._remaining(), now=now
            )

    def _took(self, key: str) -> float:
        """The seconds of a finished cell, which count for its stage."""
        state = read_state(self.cells[key].folder(self.out))
        seconds = 0.0 if state is None else state.seconds
        self._seconds.setdefault(self.cells[key].stage, []).append(seconds)
        return seconds

    def _ended(self, key: str, how: str, always: bool = False) -> None:
        self._left[self.cells[key].stage] -= 1
        self._started.pop(key, None)
        if always or self._bar.disable:
            done = self._total - self._left.total()
            remaining = self._remaining()
            line = f"[{done}/{self._total}] {key}: "
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
            seconds -= min(now - since, mean.get(self.cells[key].stage, 0.0))
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
