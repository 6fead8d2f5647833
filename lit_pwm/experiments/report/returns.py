"""The table of returns: tasks against methods, each a mean with its interval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np
from markupsafe import Markup

from lit_pwm.experiments.report import figures
from lit_pwm.experiments.report.grid import Estimate, mean_estimate
from lit_pwm.experiments.report.interval_chart import Line, interval_chart
from lit_pwm.experiments.report.markup import notice, paragraph
from lit_pwm.experiments.report.page import Page
from lit_pwm.experiments.report.tables import Table, entry

if TYPE_CHECKING:
    from matplotlib.figure import Figure


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
    """A row for each task, and one for their mean where there are several; the best of ours in each is marked."""
    lines, ours = _lines(rows, columns), [number for number, column in enumerate(columns) if column.ours]
    marked = set()
    for place, (_, values) in enumerate(lines):
        found = {number: value.value for number in ours if (value := values[number]) is not None}
        marked |= {(place, number + 1) for number, value in found.items() if value == max(found.values())}
    return Table(
        ["task", *(column.title for column in columns)],
        [[(name, ""), *map(entry, values)] for name, values in lines],
        title="Returns in the real environments: mean, 95 % interval over runs",
        total=len(rows) > 1,
        marked=marked,
        strong=[number + 1 for number in ours],
    )


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

    def render(self, page: Page) -> Markup:
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
        caption = "Mean over runs, below it the 95 % t interval over runs. Highlighted: the best PWM policy of the row."
        return paragraph(text) + drawn + results_table(self.rows, self.columns).html(caption)


def _draw(rows: Sequence[ResultsRow], columns: Sequence[Column]) -> Figure:
    lines = []
    for number, column in enumerate(columns):
        colour, marker = _LOOKS.get(column.method, (figures.SERIES[number % len(figures.SERIES)], "o"))
        estimates = [_value(column, row) for row in rows]
        lines.append(Line(column.title, estimates, colour, marker, filled=column.statistic != "best"))
    return interval_chart([row.task for row in rows], lines, "return", separated=True, span=(-15, 1015))
