"""The table of returns: tasks against methods, each a mean with its interval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np
from rich.table import Table
from rich.text import Text

from lit_pwm.experiments.report import figures
from lit_pwm.experiments.report.grid import Estimate, mean_estimate
from lit_pwm.experiments.report.markup import cell, markdown_text, notice, paragraph, table
from lit_pwm.experiments.report.page import Page

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
        returns: method → the mean return of each run, in the same order of runs in all rows; a method that is missing
            or has none leaves its cells empty.
        highest: method → return of its best episode; the best run's mean where it is not given.
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


def _value(column: Column, row: ResultsRow) -> Estimate | None:
    returns = row.returns.get(column.method, ())
    if len(returns) > 0 and column.statistic == "best":
        return Estimate(row.highest.get(column.method, max(returns)))
    return mean_estimate(returns)


def _overall(column: Column, rows: Sequence[ResultsRow]) -> Estimate | None:
    """The mean over tasks of each run, where every task has a value of every run."""
    scores = [row.returns.get(column.method, ()) for row in rows]
    if column.statistic == "best" or len({len(returns) for returns in scores}) != 1:
        return None
    return mean_estimate(np.mean(scores, axis=0))


def _lines(rows: Sequence[ResultsRow], columns: Sequence[Column]) -> list[tuple[str, list[Estimate | None]]]:
    lines = [(row.task, [_value(column, row) for column in columns]) for row in rows]
    if len(rows) > 1:
        lines.append(("mean over tasks", [_overall(column, rows) for column in columns]))
    return lines


def results_table(rows: Sequence[ResultsRow], columns: Sequence[Column] = COLUMNS) -> Table:
    """The table for a terminal."""
    shown = Table(
        title="Returns in the real environments: mean, 95 % interval over runs", title_justify="left", show_lines=True
    )
    shown.add_column("task", no_wrap=True)
    for column in columns:
        shown.add_column(Text(column.title), justify="right")
    for name, values in _lines(rows, columns):
        cells = [_MISSING if v is None else "\n".join(filter(None, v.shown())) for v in values]
        bold = [Text(c, style="bold" if column.ours else "") for c, column in zip(cells, columns, strict=True)]
        shown.add_row(Text(name), *bold)
    return shown


def results_markdown(rows: Sequence[ResultsRow], columns: Sequence[Column] = COLUMNS) -> str:
    """The table as Markdown, ending with a line break."""
    lines = [
        "| task | " + " | ".join(markdown_text(column.title) for column in columns) + " |",
        "| --- |" + " ---: |" * len(columns),
    ]
    for name, values in _lines(rows, columns):
        shown = [(_MISSING, "") if v is None else v.shown() for v in values]
        cells = [f"{text} ({small})" if small else text for text, small in shown]
        lines.append(f"| {markdown_text(name)} | " + " | ".join(cells) + " |")
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
            "Mean returns; lines are 95 % t intervals over runs, open markers the best single episode.",
            wide=True,
        )
        lines = _lines(self.rows, self.columns)
        body = [[name, *self._cells(values)] for name, values in lines]
        head = ("Task", *(column.title for column in self.columns))
        caption = "Mean over runs, below it the 95 % t interval over runs. Highlighted: the best PWM policy of the row."
        return paragraph(text) + drawn + table(head, body, caption, total=len(self.rows) > 1)

    def _cells(self, values: Sequence[Estimate | None]) -> list[str]:
        ours = [v.value for v, column in zip(values, self.columns, strict=True) if column.ours and v is not None]
        cells = []
        for value, column in zip(values, self.columns, strict=True):
            if value is None:
                cells.append(cell(_MISSING))
            else:
                best = column.ours and value.value == max(ours)
                cells.append(cell(*value.shown(), kind="best" if best else ""))
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
    low, high = axes.get_xlim()
    axes.set_xlim(min(-15, low), max(1015, high))
    axes.set_xlabel("return")
    figures.key(axes, columns=3, above=True)
    return figure
