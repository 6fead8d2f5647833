"""The progress bar of an import and other passes of rows: how many, how many per second, and the time that is left."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager

from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from lit_pwm.runtime.consoles import ProgressConsole


class _Rows(ProgressColumn):
    """Rows done, and rows per second."""

    def __init__(self, unit: str) -> None:
        super().__init__()
        self._unit = unit

    def render(self, task: Task) -> Text:
        """The counts and the measured speed."""
        done = f"{int(task.completed):,}/{int(task.total or 0):,} {self._unit}"
        return Text(
            done if task.speed is None else f"{done}, {task.speed:,.{0 if task.speed > 9 else 1}f} {self._unit}/s"
        )


@contextmanager
def progress_bar(
    what: str, total: int, done: int, shown: bool, unit: str = "rows"
) -> Generator[Callable[[int], None], None, None]:
    """A progress bar on stderr; gives the function that advances it by rows.

    Args:
        what: is done.
        total: rows of all.
        done: rows that an earlier run has done.
        shown: whether it is shown.
        unit: what is counted.
    """
    columns = (TextColumn("{task.description}"), BarColumn(), _Rows(unit), TimeRemainingColumn())
    with Progress(*columns, console=ProgressConsole(stderr=True), disable=not shown, speed_estimate_period=20) as bar:
        number = bar.add_task(what, total=total, completed=done)
        yield lambda rows: bar.advance(number, rows)
