"""The comparison of a grid's cells: one row for each, mean, interquartile mean, probability of improvement."""

from __future__ import annotations

from typing import TYPE_CHECKING

from markupsafe import Markup

from lit_pwm.experiments.report import figures
from lit_pwm.experiments.report.grid import Grid, Labels
from lit_pwm.experiments.report.interval_chart import Line, interval_chart
from lit_pwm.experiments.report.markup import notice, paragraph
from lit_pwm.experiments.report.page import Page
from lit_pwm.experiments.report.tables import Entry, Table, entry

if TYPE_CHECKING:
    from matplotlib.figure import Figure

KINDS = {"best": "best checkpoint", "last": "last checkpoint"}


def name_of(labels: Labels) -> str:
    """A cell's name in tables and legends."""
    return " / ".join(labels)


def kinds_of(grid: Grid) -> list[str]:
    """The kinds of checkpoint that were evaluated; the first is the one that cells are compared by."""
    return list(dict.fromkeys(kind for run in grid.runs for kind in run.returns))


def comparison_table(grid: Grid) -> Table:
    """The main table: headings, and a row for each cell."""
    kinds = kinds_of(grid)
    head = [" / ".join(axis.replace("_", " ") for axis in grid.axes), "runs per task"]
    for kind in kinds:
        head += [f"Mean, {kind}", f"IQM, {kind}"]
    head.append(f"P(better than {name_of(grid.baseline)})")
    rows = []
    for labels in grid.cells:
        row: list[Entry] = [(name_of(labels), ""), (grid.seeds(labels), "")]
        for kind in kinds:
            row += [entry(grid.estimate(labels, kind)), entry(grid.iqm(labels, kind))]
        row.append(entry(grid.improvement(labels, kinds[0]), 2))
        rows.append(row)
    return Table(head, rows)


def crossed_table(grid: Grid) -> Table | None:
    """With two axes, the means of the first kind crossed: the first axis down, the second across."""
    if len(grid.axes) != 2:
        return None
    (down, rows), (across, columns) = grid.axes.items()
    present = [{labels[i] for labels in grid.cells} for i in (0, 1)]
    columns = [label for label in columns if label in present[1]]
    kind = kinds_of(grid)[0]
    head = [f"{down} ↓ {across} →".replace("_", " "), *columns]
    crossed = [
        [(label, ""), *(entry(grid.estimate((label, column), kind)) for column in columns)]
        for label in rows
        if label in present[0]
    ]
    return Table(head, crossed)


def task_table(grid: Grid, kind: str) -> Table:
    """A row for each task: the mean of each cell's runs."""
    head = ["task", *(name_of(labels) for labels in grid.cells)]
    rows = [[(task, ""), *(entry(grid.in_task(x, task, kind)) for x in grid.cells)] for task in grid.tasks]
    return Table(head, rows)


class ComparisonSection:
    """All cells beside each other.

    Args:
        grid: the runs.
    """

    title = "Comparison"
    anchor = "comparison"

    def __init__(self, grid: Grid) -> None:
        self.grid = grid

    def render(self, page: Page) -> Markup:
        """The drawing of the means, the crossed table and the full one."""
        grid = self.grid
        if not grid.runs:
            return notice("No cell was evaluated.")
        kind = kinds_of(grid)[0]
        note = paragraph(
            "The score of a run in a task is its mean return over episodes on environment seeds that chose nothing "
            "(an episode's return is at most 1000). Scores are averaged over tasks for each seed; means and IQM, the "
            "interquartile mean, are over the seeds that have a run in every task. Intervals are Student's t over "
            "seeds, 95 %, if scores are about normal; where a task is all or nothing they cover less. Runs that are "
            "trained on one collection of data share what it happens to hold: intervals tell how other seeds would "
            "differ, not other data. P is the share of pairs of runs in a task in which the cell's beats that of "
            f"{name_of(grid.baseline)}, ties counted half; it describes these runs, and the differences below tell "
            "what is more than chance."
        )
        if alone := [task for task in grid.tasks if task not in grid.pooled]:
            note += paragraph(f"In no mean over tasks, because their returns have another scale: {', '.join(alone)}.")
        drawn = page.figure(
            f"{self.anchor}-means",
            _draw(grid),
            "Mean of each cell with its 95 % interval; the table below gives the numbers.",
            f"Mean over {len(grid.pooled)} tasks, 95 % t intervals over seeds; filled: {KINDS.get(kind, kind)}.",
            wide=True,
        )
        crossed = crossed_table(grid)
        first = crossed.html(f"Mean return of the {KINDS.get(kind, kind)}.") if crossed else Markup()
        return note + drawn + first + comparison_table(grid).html("Every cell, over all tasks.")


class TasksSection:
    """Every task by itself.

    Args:
        grid: the runs.
    """

    title = "By task"
    anchor = "by-task"

    def __init__(self, grid: Grid) -> None:
        self.grid = grid

    def render(self, page: Page) -> Markup:
        """A table for each kind of checkpoint."""
        captions = {kind: f"Mean over runs, {KINDS.get(kind, kind)}." for kind in kinds_of(self.grid)}
        return Markup().join(task_table(self.grid, kind).html(caption) for kind, caption in captions.items())


def _draw(grid: Grid) -> Figure:
    kinds = kinds_of(grid)
    lines = [
        Line(
            KINDS.get(kind, kind), [grid.estimate(cell, kind) for cell in grid.cells],
            figures.SERIES[number % len(figures.SERIES)], "oD^s"[number % 4], filled=number == 0,
        )
        for number, kind in enumerate(kinds)
    ]  # fmt: skip
    return interval_chart([name_of(cell) for cell in grid.cells], lines, "mean return")
