"""What each cell of a grid costs, and what its returns look like against that cost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from markupsafe import Markup

from lit_pwm.experiments.report import figures
from lit_pwm.experiments.report.comparison import name_of
from lit_pwm.experiments.report.curves import slug
from lit_pwm.experiments.report.grid import Grid, Labels
from lit_pwm.experiments.report.markup import notice, panels, paragraph
from lit_pwm.experiments.report.page import Page
from lit_pwm.experiments.report.tables import MISSING, Entry, Table, entry

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PAIRED_RATIO = "ratio at the same seed (geometric mean over seeds, 95 % t interval of its logarithm)"

COSTS = {
    "update": "updates of the policy",
    "flops": "FLOPs of the policy's updates",
    "seconds": "seconds of the policy's updates",
}
"""Columns of a curve that it is drawn against."""


def quantity(value: float) -> str:
    """A number as people read it: three significant digits, with a letter for thousands and more."""
    for factor, letter in ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= factor:
            return f"{value / factor:.3g} {letter}"
    return f"{value:.3g}"


def figures_table(grid: Grid, names: Sequence[str], ratios: bool = True) -> Table:
    """A row for each cell, with its mean of each figure and, below it, the ratio to the baseline's."""
    rows = []
    for labels in grid.cells:
        row: list[Entry] = [(name_of(labels), "")]
        for name in names:
            value, base = grid.figure(labels, name), grid.figure(grid.baseline, name)
            ratio = f"× {value / base:.2f}" if ratios and value is not None and base else ""
            row.append((MISSING, "") if value is None else (quantity(value), ratio))
        rows.append(row)
    return Table(["cell", *names], rows)


def figure_by_task(grid: Grid, name: str) -> Table:
    """A row for each task, with each cell's mean of one figure and the ratio to the baseline's."""
    rows = []
    for task in grid.tasks:
        row: list[Entry] = [(task, "")]
        for labels in grid.cells:
            value, base = grid.figure(labels, name, task), grid.figure(grid.baseline, name, task)
            ratio = f"× {value / base:.2f}" if value is not None and base else ""
            row.append((MISSING, "") if value is None else (quantity(value), ratio))
        rows.append(row)
    return Table(["task", *(name_of(labels) for labels in grid.cells)], rows)


def ratios_by_task(grid: Grid, name: str) -> Table:
    """A row for each task, with each other cell's figure over the baseline's at the same seeds, and its interval."""
    others = [labels for labels in grid.cells if labels != grid.baseline]
    rows = [[(task, ""), *(entry(grid.ratio(x, name, task), 2) for x in others)] for task in grid.tasks]
    return Table(["task", *(f"{name_of(labels)} ÷ {name_of(grid.baseline)}" for labels in others)], rows)


class FiguresSection:
    """A table of other figures of the cells.

    Args:
        title: the heading.
        anchor: the part's address.
        grid: the runs.
        names: the figures; those that no run has are left out.
        note: what they are, plain text.
        ratios: show the ratio to the baseline under each.
        by_task: those that are also shown for each task.
    """

    def __init__(
        self,
        title: str,
        anchor: str,
        grid: Grid,
        names: Sequence[str],
        note: str,
        ratios: bool = True,
        by_task: Sequence[str] = (),
    ) -> None:
        self.by_task = by_task
        self.title, self.anchor, self.grid, self.note, self.ratios = title, anchor, grid, note, ratios
        self.names = [name for name in names if any(name in run.figures for run in grid.runs)]

    def render(self, page: Page) -> Markup:
        """The note and the tables."""
        if not self.names:
            return notice("Nothing of this was recorded.")
        tables = figures_table(self.grid, self.names, self.ratios).html(f"{self.title}.")
        for name in self.by_task:
            if name in self.names:
                tables += figure_by_task(self.grid, name).html(f"By task: {name}.")
                if len(self.grid.cells) > 1:
                    tables += ratios_by_task(self.grid, name).html(f"By task: {name}, {PAIRED_RATIO}.")
        return paragraph(self.note) + tables


class CostCurvesSection:
    """The return of each task against updates, FLOPs and seconds.

    Args:
        grid: the runs.
    """

    title = "Returns against cost"
    anchor = "cost-curves"

    def __init__(self, grid: Grid) -> None:
        self.grid = grid

    def render(self, page: Page) -> Markup:
        """A drawing for each task and each cost that was recorded."""
        drawn = []
        for task in self.grid.tasks:
            for cost in COSTS:
                lines = {labels: mean_curve(self.grid, labels, task, cost) for labels in self.grid.cells}
                lines = {labels: line for labels, line in lines.items() if line}
                if lines:
                    alt = f"{task}: mean return against {COSTS[cost]} for {len(lines)} cells."
                    drawn.append(
                        page.figure(f"{self.anchor}-{slug(task)}-{cost}", _draw(self.grid, task, cost, lines), alt)
                    )
        if not drawn:
            return notice("No policy was evaluated during training.")
        text = (
            "Mean over runs of the return on the seeds that choose the best checkpoint. FLOPs and seconds are those of "
            "the policy's updates alone: without the world model's training, which the policies of a seed share, and "
            "without evaluations."
        )
        return paragraph(text) + panels(drawn)


def mean_curve(grid: Grid, labels: Labels, task: str, cost: str) -> list[tuple[float, float]]:
    """(mean cost, mean return) over a cell's runs at each evaluation that all of them have; empty without the cost."""
    curves = [run.curve for run in grid.of(labels, task) if run.curve.get("return")]
    shared = set.intersection(*(set(curve["update"]) for curve in curves)) if curves else set()
    points = []
    for update in sorted(x for x in shared if x is not None):
        at = [list(curve["update"]).index(update) for curve in curves]
        costs = [curve[cost][i] for curve, i in zip(curves, at, strict=True)]
        returns = [curve["return"][i] for curve, i in zip(curves, at, strict=True)]
        known = [(c, r) for c, r in zip(costs, returns, strict=True) if c is not None and r is not None]
        if len(known) == len(curves):
            points.append((float(np.mean([c for c, _ in known])), float(np.mean([r for _, r in known]))))
    return points


@figures.drawing
def _draw(grid: Grid, task: str, cost: str, lines: dict[Labels, list[tuple[float, float]]]) -> Figure:
    figure, axes = figures.panel(3.9, 2.5 + 0.18 * len(lines))
    for labels, points in lines.items():
        number = grid.cells.index(labels)  # a cell keeps its colour in every drawing
        axes.plot(
            *zip(*points, strict=True), figures.DASHES[number // len(figures.SERIES) % len(figures.DASHES)],
            color=figures.SERIES[number % len(figures.SERIES)], label=name_of(labels), marker="o", markersize=2.5,
        )  # fmt: skip
    axes.set_title(task)
    axes.set_ylim(-20, max(1020, axes.get_ylim()[1]))
    axes.set_xlabel(COSTS[cost])
    axes.set_ylabel("return")
    if len(lines) > 1:
        figures.key(axes, columns=min(len(lines), 2))
    return figure
