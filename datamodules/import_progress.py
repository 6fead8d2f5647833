"""The progress bar of an import: rows, rows per second, and the time that is left."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager

from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from lit_pwm.runtime.consoles import ProgressConsole


class _Rows(ProgressColumn):
    """Rows done, and rows per second."""

    def render(self, task: Task) -> Text:
        """The counts and the measured speed."""
        done = f"{int(task.completed):,}/{int(task.total or 0):,} rows"
        return Text(done if task.speed is None else f"{done}, {task.speed:,.0f} rows/s")


@contextmanager
def progress_bar(what: str, total: int, done: int, shown: bool) -> Generator[Callable[[int], None], None, None]:
    """A progress bar on stderr; gives the function that advances it by rows.

    Args:
        what: is done.
        total: rows of all.
        done: rows that an earlier run has done.
        shown: whether it is shown.
    """
    columns = (TextColumn("{task.description}"), BarColumn(), _Rows(), TimeRemainingColumn())
    with Progress(*columns, console=ProgressConsole(stderr=True), disable=not shown, speed_estimate_period=20) as bar:
        number = bar.add_task(what, total=total, completed=done)
        yield lambda rows: bar.advance(number, rows)
