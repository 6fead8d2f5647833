"""The comparison of a grid's cells: one row for each, mean, interquartile mean, probability of improvement."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lit_pwm.experiments.report import figures
from lit_pwm.experiments.report.grid import Estimate, Grid, Labels
from lit_pwm.experiments.report.markup import cell, markdown_text, notice, paragraph, table
from lit_pwm.experiments.report.page import Page

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MISSING = "–"
KINDS = {"best": "best checkpoint", "last": "last checkpoint"}
Entry = tuple[str, str]
"""Text and the small text below it."""


def name_of(labels: Labels) -> str:
    """A cell's name in tables and legends."""
    return " / ".join(labels)


def entry(estimate: Estimate | None, digits: int = 0) -> Entry:
    """An estimate as text with its interval."""
    return (MISSING, "") if estimate is None else estimate.shown(digits)


def kinds_of(grid: Grid) -> list[str]:
    """The kinds of checkpoint that were evaluated; the first is the one that cells are compared by."""
    return list(dict.fromkeys(kind for run in grid.runs for kind in run.returns))


def comparison_table(grid: Grid) -> tuple[list[str], list[list[Entry]]]:
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
    return head, rows


def crossed_table(grid: Grid) -> tuple[list[str], list[list[Entry]]] | None:
    """With two axes, the means of the first kind crossed: the first axis down, the second across."""
    if len(grid.axes) != 2:
        return None
    (down, rows), (across, columns) = grid.axes.items()
    present = [{labels[i] for labels in grid.cells} for i in (0, 1)]
    columns = [label for label in columns if label in present[1]]
    kind = kinds_of(grid)[0]
    head = [f"{down} ↓ {across} →".replace("_", " "), *columns]
    return head, [
        [(label, ""), *(entry(grid.estimate((label, column), kind)) for column in columns)]
        for label in rows
        if label in present[0]
    ]


def task_table(grid: Grid, kind: str) -> tuple[list[str], list[list[Entry]]]:
    """A row for each task: the mean of each cell's runs."""
    head = ["task", *(name_of(labels) for labels in grid.cells)]
    return head, [[(task, ""), *(entry(grid.in_task(x, task, kind)) for x in grid.cells)] for task in grid.tasks]


def markdown(head: Sequence[str], rows: Sequence[Sequence[Entry]]) -> str:
    """A table as Markdown, ending with a line break."""
    lines = ["| " + " | ".join(map(markdown_text, head)) + " |", "| --- |" + " ---: |" * (len(head) - 1)]
    for row in rows:
        cells = (markdown_text(f"{text} ({small})" if small else text) for text, small in row)
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def html_table(head: Sequence[str], rows: Sequence[Sequence[Entry]], caption: str) -> str:
    """A table as HTML."""
    return table(head, [[row[0][0], *(cell(*e) for e in row[1:])] for row in rows], caption)


class ComparisonSection:
    """All cells beside each other.

    Args:
        grid: the runs.
    """

    title = "Comparison"
    anchor = "comparison"

    def __init__(self, grid: Grid) -> None:
        self.grid = grid

    def render(self, page: Page) -> str:
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
        drawn = page.figure(
            f"{self.anchor}-means",
            _draw(grid),
            "Mean of each cell with its 95 % interval; the table below gives the numbers.",
            f"Mean over {len(grid.tasks)} tasks, 95 % t intervals over seeds; filled: {KINDS.get(kind, kind)}.",
            wide=True,
        )
        crossed = crossed_table(grid)
        first = html_table(*crossed, f"Mean return of the {KINDS.get(kind, kind)}.") if crossed else ""
        return note + drawn + first + html_table(*comparison_table(grid), "Every cell, over all tasks.")


class TasksSection:
    """Every task by itself.

    Args:
        grid: the runs.
    """

    title = "By task"
    anchor = "by-task"

    def __init__(self, grid: Grid) -> None:
        self.grid = grid

    def render(self, page: Page) -> str:
        """A table for each kind of checkpoint."""
        captions = {kind: f"Mean over runs, {KINDS.get(kind, kind)}." for kind in kinds_of(self.grid)}
        return "".join(html_table(*task_table(self.grid, kind), caption) for kind, caption in captions.items())


@figures.drawing
def _draw(grid: Grid) -> Figure:
    kinds = kinds_of(grid)
    figure, axes = figures.panel(6.4, 0.9 + 0.3 * len(grid.cells) * len(kinds))
    gap = len(kinds) + 0.7
    for place, labels in enumerate(grid.cells):
        for line, kind in enumerate(kinds):
            estimate = grid.estimate(labels, kind)
            if estimate is None:
                continue
            colour, height = figures.SERIES[line % len(figures.SERIES)], place * gap + line
            if estimate.interval is not None:
                axes.plot([*estimate.interval], [height, height], color=colour, linewidth=2.4, solid_capstyle="round")
            axes.plot(
                estimate.value, height, "oD^s"[line % 4], color=colour, markersize=6.5,
                markerfacecolor=colour if line == 0 else "none", label=KINDS.get(kind, kind) if place == 0 else "",
            )  # fmt: skip
    axes.set_yticks(
        [place * gap + (len(kinds) - 1) / 2 for place in range(len(grid.cells))], [name_of(x) for x in grid.cells]
    )
    axes.tick_params(axis="y", labelcolor=figures.INK)
    axes.set_ylim(gap * len(grid.cells) - 1, -0.8)
    axes.grid(axis="y", visible=False)
    axes.set_xlabel("mean return")
    if len(kinds) > 1:
        figures.key(axes, columns=len(kinds), above=True)
    return figure
