"""Drawings of estimates with their intervals: rows of what is compared, a line in each for each kind of estimate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lit_pwm.experiments.report import figures
from lit_pwm.experiments.report.grid import Estimate

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_BETWEEN = 0.7
"""Room between rows, in lines."""


@dataclass(frozen=True)
class Line:
    """One kind of estimate.

    Attributes:
        label: what the key calls it.
        estimates: one for each row, or None.
        colour: of its lines and markers.
        marker: matplotlib's.
        filled: whether markers are.
    """

    label: str
    estimates: Sequence[Estimate | None]
    colour: str
    marker: str
    filled: bool = True


@figures.drawing
def interval_chart(
    rows: Sequence[str],
    lines: Sequence[Line],
    label: str,
    *,
    separated: bool = False,
    span: tuple[float, float] | None = None,
) -> Figure:
    """Estimates as markers on lines from end to end of their intervals.

    Args:
        rows: names, from the top.
        lines: from the top of each row.
        label: of the values.
        separated: draw a line between rows.
        span: values that are within the drawing in any case.
    """
    figure, axes = figures.panel(6.4, 0.9 + 0.3 * len(rows) * len(lines))
    gap = len(lines) + _BETWEEN
    labelled = set()
    for place in range(len(rows)):
        for number, line in enumerate(lines):
            estimate, height = line.estimates[place], place * gap + number
            if estimate is None:
                continue
            if estimate.interval is not None:
                axes.plot(
                    [*estimate.interval], [height, height], color=line.colour, linewidth=2.4, solid_capstyle="round"
                )
            axes.plot(
                estimate.value, height, line.marker, color=line.colour, markersize=6.5,
                markerfacecolor=line.colour if line.filled else "none", label="" if number in labelled else line.label,
            )  # fmt: skip
            labelled.add(number)
    axes.set_yticks([place * gap + (len(lines) - 1) / 2 for place in range(len(rows))], list(rows))
    axes.tick_params(axis="y", labelcolor=figures.INK)
    axes.set_ylim(gap * len(rows) - 1, -0.8)
    axes.grid(axis="y", visible=False)
    for place in range(1, len(rows)) if separated else ():
        axes.axhline(place * gap - (1 + _BETWEEN) / 2, color=figures.GRID, linewidth=0.8)
    if span is not None:
        low, high = axes.get_xlim()
        axes.set_xlim(min(span[0], low), max(span[1], high))
    axes.set_xlabel(label)
    if len(lines) > 1:
        figures.key(axes, columns=min(len(lines), 3), above=True)
    return figure
