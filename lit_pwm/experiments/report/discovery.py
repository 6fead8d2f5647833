"""Tasks whose returns are all or nothing: how often a policy finds what the task is about, and what it earns then."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import numpy as np
from markupsafe import Markup

from lit_pwm.experiments.report.comparison import kinds_of, name_of
from lit_pwm.experiments.report.contrasts import Contrast, between_labels, contrast_table, spoken
from lit_pwm.experiments.report.grid import Grid, Labels
from lit_pwm.experiments.report.markup import notice, paragraph
from lit_pwm.experiments.report.page import Page
from lit_pwm.experiments.report.tables import MISSING, Entry, Table
from lit_pwm.measures.statistics import share_interval

_NOTHING, _FOUND = 0.01, 0.3
"""Shares of the range of returns: up to the first an episode found nothing, from the second on it found all."""
_LEAST_EPISODES = 5
EXPLANATION = (
    "Where an episode earns nothing or nearly all, a mean return hides two figures: how often what the task is about "
    "is found, and what is earned then. A run finds it if at least half of its episodes do; the interval of the "
    "share of runs is Clopper and Pearson's (95 %)."
)


def all_or_nothing(returns: Sequence[float]) -> float | None:
    """The return from which an episode has found what the task is about, if returns are all or nothing; else None.

    They are if at least a tenth of the episodes, and five, earn nothing (the least return and up to a hundredth of the
    range above it), and at most half as many earn something below three tenths of the range, the threshold.
    """
    values = np.asarray(returns, dtype=np.float64)
    if values.size == 0 or np.ptp(values) == 0:
        return None
    shares = (values - values.min()) / np.ptp(values)
    nothing, little = int((shares <= _NOTHING).sum()), int(((shares > _NOTHING) & (shares < _FOUND)).sum())
    if nothing < max(_LEAST_EPISODES, 0.1 * values.size) or little > nothing / 2:
        return None
    return float(values.min() + _FOUND * np.ptp(values))


def share_found(threshold: float) -> Callable[[Sequence[float]], float]:
    """A measure of a run: the share of its episodes that earn the threshold or more."""
    return lambda returns: float(np.mean(np.asarray(returns) >= threshold))


def discovery_table(grid: Grid, task: str, kind: str) -> Table:
    """A row for each cell, and below them one for each label of an axis, over all cells with that label."""
    head = ["cell", "episodes that find it", "runs that find it", "return of such episodes"]
    rows = [_row(name_of(cell), grid, [cell], task, kind) for cell in grid.cells]
    for place, (axis, labels) in enumerate(grid.axes.items()):
        if len(grid.axes) > 1:
            rows += [
                _row(f"{label} {spoken(axis)}", grid, [c for c in grid.cells if c[place] == label], task, kind)
                for label in labels
            ]
    return Table(head, rows)


def discovery_contrasts(grid: Grid, task: str, kind: str) -> list[Contrast]:
    """For each axis, the share of episodes that find it, of every label against the axis' first."""
    measure = share_found(grid.thresholds[task])
    found = [
        between_labels(grid, axis, label, labels[0], kind, f"share found, {kind}", (task,), measure, digits=2)
        for axis, labels in grid.axes.items()
        for label in labels[1:]
    ]
    return [contrast for contrast in found if contrast is not None]


def discovery_tables(grid: Grid) -> dict[str, Table]:
    """Title → table."""
    tables = {}
    for task, threshold in grid.thresholds.items():
        for kind in kinds_of(grid):
            title = f"{task}, {kind}: episodes that earn {threshold:.0f} or more"
            tables[title] = discovery_table(grid, task, kind)
        if kinds_of(grid) and (contrasts := discovery_contrasts(grid, task, kinds_of(grid)[0])):
            tables[f"{task}: differences of the share of episodes that find it"] = contrast_table(contrasts)
    return tables


class DiscoverySection:
    """Discovery rates of the tasks whose returns are all or nothing.

    Args:
        grid: the runs, with the tasks' thresholds.
    """

    title = "All or nothing"
    anchor = "discovery"

    def __init__(self, grid: Grid) -> None:
        self.grid = grid

    def render(self, page: Page) -> Markup:
        """The tables."""
        if not self.grid.thresholds:
            return notice("No task's returns are all or nothing.")
        tables = discovery_tables(self.grid)
        return paragraph(EXPLANATION) + Markup().join(table.html(f"{title}.") for title, table in tables.items())


def _row(name: str, grid: Grid, cells: Collection[Labels], task: str, kind: str) -> list[Entry]:
    """Means over runs; those of several cells depend on each other at a seed, so that only one cell has an interval."""
    threshold = grid.thresholds[task]
    runs = [run.returns[kind] for cell in cells for run in grid.of(cell, task) if run.returns.get(kind)]
    if not runs:
        return [(name, ""), (MISSING, ""), (MISSING, ""), (MISSING, "")]
    shares = [share_found(threshold)(returns) for returns in runs]
    number = sum(share >= 0.5 for share in shares)
    low, high = share_interval(number, len(runs))
    earned = [value for returns in runs for value in returns if value >= threshold]
    interval = f"{low:.2f} to {high:.2f}" if len(cells) == 1 and len(runs) > 1 else ""
    return [
        (name, ""),
        (f"{np.mean(shares):.2f}", ""),
        (f"{number} of {len(runs)}", interval),
        (f"{np.mean(earned):.0f}" if earned else MISSING, ""),
    ]
