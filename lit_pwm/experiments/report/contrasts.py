"""Differences between cells that differ in one component alone, paired by seed, and what could have been seen."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from lit_pwm.experiments.report.comparison import KINDS, kinds_of
from lit_pwm.experiments.report.grid import Grid, Labels, Measure, mean_estimate
from lit_pwm.experiments.report.markup import notice, paragraph
from lit_pwm.experiments.report.page import Page
from lit_pwm.experiments.report.tables import MISSING, Entry, Table
from lit_pwm.measures.statistics import detectable_difference, holm, paired_differences, t_interval, t_probability

HEAD = ("difference", "pairs of cells", "seeds", "mean (95 %)", "all rows at once (95 %)", "p (Holm)", "detectable")
EXPLANATION = (
    "A difference is taken at each seed: between cells that are alike but for one component (or one way of acting), "
    "averaged over tasks and over the pairs of cells; means and intervals are over seeds (Student's t). The first "
    "interval holds for its row alone; those of all rows at once are Bonferroni's, and p values Holm's, over the rows "
    "of the table. Detectable is the true difference that as many seeds and tasks, deviating as these do, show with "
    "80 % probability (two-sided test at 5 %, uncorrected): a smaller one cannot be told from none."
)
Place = tuple[Labels, str]
"""A cell and a kind of its results."""


@dataclass(frozen=True)
class Contrast:
    """One difference.

    Attributes:
        name: what is compared.
        differences: seed → the difference.
        pairs: over how many pairs of cells it is averaged.
        digits: decimals to show.
    """

    name: str
    differences: Mapping[str, float]
    pairs: int
    digits: int = 0

    @property
    def values(self) -> list[float]:
        """The differences of the seeds."""
        return list(self.differences.values())


def paired(
    grid: Grid,
    name: str,
    pairs: Iterable[tuple[Place, Place]],
    tasks: Collection[str] = (),
    measure: Measure = np.mean,
    digits: int = 0,
) -> Contrast | None:
    """The mean difference of pairs of cells, at the seeds that all of them have in every task.

    Args:
        grid: the runs.
        name: of the contrast.
        pairs: what is compared with what; a pair of which one has no runs in some task is left out.
        tasks: those that count; all whose returns can be averaged (`Grid.pooled`) if none is named.
        measure: what is taken of a run's returns in a task.
        digits: decimals to show.

    Returns:
        The contrast; None where no pair has a seed with runs in every task.
    """
    wanted = set(tasks or grid.pooled)
    found: list[dict[str, float]] = []
    for places in pairs:
        ours, theirs = (
            {task: scores for task, scores in grid.scores(cell, kind, measure).items() if task in wanted}
            for cell, kind in places
        )
        if set(ours) == set(theirs) == wanted and (differences := paired_differences(ours, theirs)):
            found.append(differences)
    shared = [seed for seed in found[0] if all(seed in other for other in found)] if found else []
    differences = {seed: float(np.mean([one[seed] for one in found])) for seed in shared}
    return Contrast(name, differences, len(found), digits) if differences else None


def between_labels(
    grid: Grid,
    axis: str,
    label: str,
    other: str,
    kind: str,
    note: str = "",
    tasks: Collection[str] = (),
    measure: Measure = np.mean,
    digits: int = 0,
) -> Contrast | None:
    """How much cells with one label of an axis exceed those with another and the same labels of all other axes.

    Args:
        grid: the runs.
        axis: the axis.
        label: the one.
        other: the other, usually the axis' first.
        kind: of the results.
        note: what the name says after the comma; the kind if nothing.
        tasks: as for `paired`.
        measure: as for `paired`.
        digits: as for `paired`.
    """
    place = list(grid.axes).index(axis)
    cells = [(cell, (*cell[:place], other, *cell[place + 1 :])) for cell in grid.cells if cell[place] == label]
    pairs = [((one, kind), (two, kind)) for one, two in cells if two in grid.cells]
    return paired(grid, f"{label} − {other} {spoken(axis)}, {note or kind}", pairs, tasks, measure, digits)


def between_kinds(
    grid: Grid, kind: str, other: str, axis: str, label: str, note: str = "", tasks: Collection[str] = ()
) -> Contrast | None:
    """How much one kind of results exceeds another of the same runs, of the cells with one label of an axis."""
    place = list(grid.axes).index(axis)
    pairs = [((cell, kind), (cell, other)) for cell in grid.cells if cell[place] == label]
    return paired(grid, f"{kind} − {other}, {label} {spoken(axis)}{note and f', {note}'}", pairs, tasks)


def spoken(axis: str) -> str:
    """An axis' name in words."""
    return axis.replace("_", " ")


def component_contrasts(grid: Grid) -> list[Contrast]:
    """For each kind of results and each axis, every label against the axis' first."""
    found = [
        between_labels(grid, axis, label, labels[0], kind)
        for kind in kinds_of(grid)
        for axis, labels in grid.axes.items()
        for label in labels[1:]
    ]
    return [contrast for contrast in found if contrast is not None]


def kind_contrasts(grid: Grid) -> list[Contrast]:
    """For each label of each axis, every other kind of results against the first."""
    first, *others = kinds_of(grid) or [""]
    found = [
        between_kinds(grid, kind, first, axis, label)
        for kind in others
        for axis, labels in grid.axes.items()
        for label in labels
    ]
    return [contrast for contrast in found if contrast is not None]


def contrast_table(contrasts: Sequence[Contrast]) -> Table:
    """A row for each contrast; corrections are over these rows, of those with two seeds or more."""
    tests = {place: t_probability(c.values) for place, c in enumerate(contrasts) if len(c.differences) > 1}
    adjusted = dict(zip(tests, holm([p for p in tests.values() if p is not None]), strict=True))
    rows = []
    for place, contrast in enumerate(contrasts):
        values, digits = contrast.values, contrast.digits
        row: list[Entry] = [(contrast.name, ""), (str(contrast.pairs), ""), (str(len(values)), "")]
        alone = mean_estimate(values)
        together = t_interval(values, 1 - 0.05 / max(len(tests), 1))
        least = detectable_difference(values)
        assert alone is not None
        row.append((f"{alone.value:+.{digits}f}", _signed(alone.interval, digits) or "1 seed"))
        row.append((_signed(together, digits) or MISSING, ""))
        row.append((f"{adjusted[place]:.2g}" if place in adjusted else MISSING, ""))
        row.append((MISSING if least is None else f"{least:.{digits}f}", ""))
        rows.append(row)
    return Table(HEAD, rows)


def _signed(interval: tuple[float, float] | None, digits: int) -> str:
    return "" if interval is None else f"{interval[0]:+.{digits}f} to {interval[1]:+.{digits}f}"


class ContrastsSection:
    """What a component changes, whether that is more than chance, and what could have been seen.

    Args:
        grid: the runs.
    """

    title = "Differences"
    anchor = "differences"

    def __init__(self, grid: Grid) -> None:
        self.grid = grid

    def render(self, page: Page) -> Markup:
        """The explanation and a table each for components and for kinds of results."""
        tables = contrast_tables(self.grid)
        if not tables:
            return notice("No two cells have runs of the same seed in every task, so that nothing is compared.")
        return paragraph(EXPLANATION) + Markup().join(table.html(f"{title}.") for title, table in tables.items())


def contrast_tables(grid: Grid) -> dict[str, Table]:
    """Title → table, of those that have a row."""
    kinds = kinds_of(grid)
    first = KINDS.get(kinds[0], kinds[0]) if kinds else ""
    found = {
        "Differences of returns between components": component_contrasts(grid),
        f"Differences of returns from the {first}": kind_contrasts(grid),
    }
    return {title: contrast_table(contrasts) for title, contrasts in found.items() if contrasts}
