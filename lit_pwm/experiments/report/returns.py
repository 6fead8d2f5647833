"""The table of returns: tasks against methods, each a mean with its interval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np
from rich.table import Table

from lit_pwm.experiments.report import figures
from lit_pwm.experiments.report.markup import cell, notice, paragraph, table
from lit_pwm.experiments.report.page import Page
from lit_pwm.statistics import Interval, bootstrap_interval, mean

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MISSING = "–"


@dataclass(frozen=True)
class Column:
    """A column of the table.

    Attributes:
        title: the heading.
        method: whose returns it shows, a key of `ResultsRow.returns`.
        statistic: the mean return with its interval, or the best single episode.
        ours: whether it competes for the row's highlight.
    """

    title: str
    method: str
    statistic: Literal["mean", "best"] = "mean"
    ours: bool = False


@dataclass(frozen=True)
class ResultsRow:
    """A task's row.

    Attributes:
        task: the task.
        returns: method → returns of its episodes; a method that is missing or has none leaves its cells empty.
        highest: method → return of its best episode, where `returns` are not those of episodes.
    """

    task: str
    returns: Mapping[str, Sequence[float]]
    highest: Mapping[str, float] = field(default_factory=dict)


COLUMNS = (
    Column("Random policy", "random"),
    Column("Data, mean", "data"),
    Column("Data, best episode", "data", "best"),
    Column("PWM, best", "best", ours=True),
    Column("PWM, last", "last", ours=True),
)
"""The demo's columns."""

_LOOKS = {
    "random": (figures.MUTED, "^"),
    "data": (figures.ORANGE, "s"),
    "best": (figures.BLUE, "o"),
    "last": (figures.GREEN, "D"),
}


@dataclass(frozen=True)
class _Value:
    value: float
    interval: Interval | None = None

    @property
    def range(self) -> str:
        return "" if self.interval is None else f"{self.interval.low:.0f}–{self.interval.high:.0f}"


def _value(column: Column, row: ResultsRow) -> _Value | None:
    returns = row.returns.get(column.method, ())
    if len(returns) == 0:
        return None
    if column.statistic == "best":
        return _Value(row.highest.get(column.method, max(returns)))
    return _Value(float(np.mean(returns)), bootstrap_interval([returns]) if len(returns) > 1 else None)


def _overall(column: Column, rows: Sequence[ResultsRow]) -> _Value | None:
    """The mean over tasks, where every task has a value."""
    scores = [row.returns.get(column.method, ()) for row in rows]
    if column.statistic == "best" or any(len(returns) == 0 for returns in scores):
        return None
    interval = bootstrap_interval(scores) if all(len(returns) > 1 for returns in scores) else None
    return _Value(float(mean(scores)), interval)


def _lines(rows: Sequence[ResultsRow], columns: Sequence[Column]) -> list[tuple[str, list[_Value | None]]]:
    lines = [(row.task, [_value(column, row) for column in columns]) for row in rows]
    if len(rows) > 1:
        lines.append(("mean over tasks", [_overall(column, rows) for column in columns]))
    return lines


def results_table(rows: Sequence[ResultsRow], columns: Sequence[Column] = COLUMNS) -> Table:
    """The table for a terminal."""
    shown = Table(title="Returns in the real environments: mean, 95 % interval", title_justify="left", show_lines=True)
    shown.add_column("task", no_wrap=True)
    for column in columns:
        shown.add_column(column.title, justify="right")
    for name, values in _lines(rows, columns):
        cells = [_MISSING if v is None else f"{v.value:.0f}" + (f"\n{v.range}" if v.range else "") for v in values]
        bold = [f"[bold]{c}[/bold]" if column.ours else c for c, column in zip(cells, columns, strict=True)]
        shown.add_row(name, *bold)
    return shown


def results_markdown(rows: Sequence[ResultsRow], columns: Sequence[Column] = COLUMNS) -> str:
    """The table as Markdown, ending with a line break."""
    lines = [
        "| task | " + " | ".join(column.title for column in columns) + " |",
        "| --- |" + " ---: |" * len(columns),
    ]
    for name, values in _lines(rows, columns):
        cells = [_MISSING if v is None else f"{v.value:.0f}" + (f" ({v.range})" if v.range else "") for v in values]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


class ResultsSection:
    """Returns of every method in every task, as a drawing and as a table.

    Args:
        rows: the tasks.
        columns: the methods and what is shown of each.
        note: how the returns were measured, plain text.
    """

    title = "Returns in the real environments"
    anchor = "returns"

    def __init__(self, rows: Sequence[ResultsRow], columns: Sequence[Column] = COLUMNS, note: str = "") -> None:
        self.rows, self.columns, self.note = tuple(rows), tuple(columns), note

    def render(self, page: Page) -> str:
        """The note, the drawing and the table."""
        if not self.rows:
            return notice("No task was evaluated.")
        text = self.note or "An episode's return is at most 1000."
        drawn = page.figure(
            f"{self.anchor}-intervals",
            _draw(self.rows, self.columns),
            "Mean return of each method in each task with its 95 % interval; the table below gives the numbers.",
            "Mean returns; the lines are 95 % bootstrap intervals, open markers the best single episode.",
            wide=True,
        )
        lines = _lines(self.rows, self.columns)
        body = [[name, *self._cells(values)] for name, values in lines]
        head = ("Task", *(column.title for column in self.columns))
        caption = "Mean return, below it the 95 % bootstrap interval. Highlighted: the best PWM policy of the row."
        return paragraph(text) + drawn + table(head, body, caption, total=len(self.rows) > 1)

    def _cells(self, values: Sequence[_Value | None]) -> list[str]:
        ours = [v.value for v, column in zip(values, self.columns, strict=True) if column.ours and v is not None]
        cells = []
        for value, column in zip(values, self.columns, strict=True):
            if value is None:
                cells.append(cell(_MISSING))
            else:
                best = column.ours and value.value == max(ours)
                cells.append(cell(f"{value.value:.0f}", value.range, kind="best" if best else ""))
        return cells


@figures.drawing
def _draw(rows: Sequence[ResultsRow], columns: Sequence[Column]) -> Figure:
    figure, axes = figures.panel(6.4, 0.9 + 0.28 * len(rows) * len(columns))
    gap = len(columns) + 1.2
    methods = [column.method for column in columns]
    for place, row in enumerate(rows):
        for line, column in enumerate(columns):
            value = _value(column, row)
            if value is None:
                continue
            colour, marker = _LOOKS.get(
                column.method, (figures.SERIES[methods.index(column.method) % len(figures.SERIES)], "o")
            )
            height = place * gap + line
            if value.interval is not None:
                axes.plot([*value.interval], [height, height], color=colour, linewidth=2.4, solid_capstyle="round")
            axes.plot(
                value.value, height, marker, color=colour, markersize=6.5, label=column.title if place == 0 else "",
                markerfacecolor="none" if column.statistic == "best" else colour,
            )  # fmt: skip
    axes.set_yticks([place * gap + (len(columns) - 1) / 2 for place in range(len(rows))], [row.task for row in rows])
    axes.tick_params(axis="y", labelcolor=figures.INK)
    axes.set_ylim(gap * len(rows) - 1.4, -0.9)
    axes.grid(axis="y", visible=False)
    for place in range(1, len(rows)):
        axes.axhline(place * gap - 1.1, color=figures.GRID, linewidth=0.8)
    axes.set_xlim(-15, max(1015, axes.get_xlim()[1]))
    axes.set_xlabel("return")
    figures.key(axes, columns=3, above=True)
    return figure
