"""Whether ends come as often as a world model foresees them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from markupsafe import Markup

from lit_pwm.experiments.report import figures
from lit_pwm.experiments.report.curves import slug
from lit_pwm.experiments.report.markup import panels, paragraph
from lit_pwm.experiments.report.page import Page

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from lit_pwm.measures.continuation_score import ContinuationRecord

LEAST = 1e-5
"""Where axes begin: rates below it, and none at all, are drawn there."""


class ReliabilitySection:
    """Brier scores and reliability curves of continuation heads.

    Args:
        records: task, or any other label → what its held-out transitions say.
    """

    title = "Do episodes end as foreseen?"
    anchor = "reliability"

    def __init__(self, records: Mapping[str, ContinuationRecord]) -> None:
        self.records = records

    def render(self, page: Page) -> Markup:
        """A drawing for each task."""
        drawn = []
        for task, record in self.records.items():
            told = (
                f"{task}: Brier score {record['brier']:.3g}, of the base rate {record['brier_base_rate']:.3g}; "
                f"{record['ends']} ends in {record['transitions']} held-out transitions"
            )
            drawn.append(page.figure(f"{self.anchor}-{slug(task)}", _drawn(task, record), told, told))
        text = (
            "The share of held-out transitions that ended their episode, by the probability of it that the "
            "continuation head foresaw open loop. A head that is right lies on the dashed line; numbers count "
            "transitions, and rates below "
            f"{LEAST:g} are drawn at the edge. Slices overlap: an end counts once in each that holds it. A Brier score "
            "below that of always saying the training data's rate of ends is what the head knows beyond the rate."
        )
        return paragraph(text) + panels(drawn)


@figures.drawing
def _drawn(task: str, record: ContinuationRecord) -> Figure:
    figure, axes = figures.panel()
    draw_reliability(axes, record)
    axes.set_title(task)
    return figure


def draw_reliability(axes: Axes, record: ContinuationRecord) -> None:
    """Predicted against observed rates of ends, on logarithmic axes, each point with its number of transitions."""
    axes.plot([LEAST, 1], [LEAST, 1], "--", color=figures.MUTED, linewidth=0.9)
    points = [(max(found["predicted"], LEAST), max(found["observed"], LEAST)) for found in record["bins"]]
    axes.plot(*zip(*points, strict=True), "-o", color=figures.BLUE, markersize=3.5)
    for point, found in zip(points, record["bins"], strict=True):
        label, beside = f"{found['count']:,}", (6, -7)  # points
        axes.annotate(label, point, beside, textcoords="offset points", fontsize=6, color=figures.MUTED)
    axes.set(xscale="log", yscale="log", xlim=(LEAST / 1.5, 1.5), ylim=(LEAST / 1.5, 1.5))
    axes.set_xlabel("predicted probability of an end")
    axes.set_ylabel("share that ended")
