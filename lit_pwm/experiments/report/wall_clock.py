"""Where the time went."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from markupsafe import Markup

from lit_pwm.experiments.report import figures
from lit_pwm.experiments.report.markup import notice
from lit_pwm.experiments.report.page import Page
from lit_pwm.experiments.report.tables import Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def duration(seconds: float) -> str:
    """Seconds as people say them: `8.3 s`, `4 min 05 s`, `2 h 03 min`."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min"


class StagesSection:
    """The wall-clock of each stage.

    Args:
        seconds: stage → seconds, in the order they ran.
    """

    title = "Wall-clock"
    anchor = "wall-clock"

    def __init__(self, seconds: Mapping[str, float]) -> None:
        self.seconds = dict(seconds)

    def render(self, page: Page) -> Markup:
        """Bars and a table."""
        total = sum(self.seconds.values())
        if not self.seconds or total <= 0:
            return notice("No stage was timed.")
        drawn = page.figure(
            f"{self.anchor}-stages",
            _draw(self.seconds),
            "Bars of the seconds that each stage took; the table below gives the numbers.",
            wide=True,
        )
        rows = [[(name, ""), *_shown(took, total)] for name, took in (*self.seconds.items(), ("total", total))]
        return drawn + Table(("stage", "time", "share"), rows, total=True).html("Wall-clock time of each stage.")


def _shown(seconds: float, total: float) -> list[tuple[str, str]]:
    return [(duration(seconds), ""), (f"{100 * seconds / total:.0f} %", "")]


@figures.drawing
def _draw(seconds: Mapping[str, float]) -> Figure:
    figure, axes = figures.panel(6.4, 0.6 + 0.27 * len(seconds))
    bars = axes.barh(list(seconds), list(seconds.values()), color=figures.BLUE, height=0.62)
    axes.bar_label(bars, [duration(took) for took in seconds.values()], padding=4, color=figures.INK, fontsize=8.5)
    axes.invert_yaxis()
    axes.margins(x=0.14)
    axes.grid(axis="y", visible=False)
    axes.tick_params(axis="y", labelcolor=figures.INK)
    axes.set_xlabel("seconds")
    return figure
