"""What the world model foresees, beside what happened."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

from markupsafe import Markup

from lit_pwm.experiments.report import figures
from lit_pwm.experiments.report.curves import slug
from lit_pwm.experiments.report.markup import notice, panels, paragraph, piece
from lit_pwm.experiments.report.page import Page

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class OpenLoopPanel:
    """One quantity over one imagined stretch of an episode.

    Attributes:
        task: the task.
        quantity: what is shown, such as `reward` or `observation 3`.
        truth: what happened, one value a step.
        prediction: what the model foresaw from the first step alone and the actions, as long as `truth`.
        copy_last: what the predictor that knows no dynamics says; not drawn if not given.
        first_step: the number of the first value's step, counted from the start of the prediction.
    """

    task: str
    quantity: str
    truth: Sequence[float]
    prediction: Sequence[float]
    copy_last: Sequence[float] | None = None
    first_step: int = 0


class OpenLoopSection:
    """Open-loop predictions against the truth.

    Args:
        panels: the drawings; those of a task are put together.
        note: plain text above them.
    """

    title = "Open-loop prediction against truth"
    anchor = "open-loop"

    def __init__(self, panels: Sequence[OpenLoopPanel], note: str = "") -> None:
        self.panels, self.note = tuple(panels), note

    def render(self, page: Page) -> Markup:
        """A drawing for each panel, by task."""
        if not self.panels:
            return notice("No prediction was recorded.")
        text = self.note or (
            "Held-out episodes. The model sees the first observation and then only the actions; the dashed line is the "
            "predictor that leaves the latent state where it was."
        )
        order = list(dict.fromkeys(shown.task for shown in self.panels))
        by_task = sorted(self.panels, key=lambda shown: order.index(shown.task))
        parts = []
        for task, group in groupby(by_task, key=lambda shown: shown.task):
            drawn = []
            for number, shown in enumerate(group, start=1):
                name = f"{self.anchor}-{slug(task)}-{number}-{slug(shown.quantity)}"
                drawn.append(page.figure(name, _draw(shown), _alt(shown)))
            parts.append(piece("heading", task) + panels(drawn))
        return Markup().join([paragraph(text), *parts])


def _alt(shown: OpenLoopPanel) -> str:
    gap = sum(abs(a - b) for a, b in zip(shown.truth, shown.prediction, strict=True)) / len(shown.truth)
    return (
        f"{shown.task}, {shown.quantity}: truth and open-loop prediction over {len(shown.truth)} steps; "
        f"they differ by {gap:.3g} on average."
    )


@figures.drawing
def _draw(shown: OpenLoopPanel) -> Figure:
    figure, axes = figures.panel()
    steps = range(shown.first_step, shown.first_step + len(shown.truth))
    if shown.copy_last is not None:
        axes.plot(steps, shown.copy_last, "--", color=figures.VERMILION, linewidth=1.3, label="copy last")
    axes.plot(steps, shown.truth, color=figures.INK, linewidth=1.6, label="truth")
    axes.plot(steps, shown.prediction, color=figures.BLUE, marker="o", markersize=3, linewidth=1.6, label="world model")
    axes.set_title(shown.quantity)
    axes.set_xlabel("steps ahead")
    figures.key(axes, columns=3)
    return figure
