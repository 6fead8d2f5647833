"""The fine-tuning study's figure: each seed's return and its model's errors, by arm."""

from __future__ import annotations

import statistics
from collections.abc import Callable

from finetuning_study import ARMS
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator
from policy_records import Arms, Record, Records, returns

from lit_pwm.experiments.report import figures

_COLOURS = dict(zip(ARMS, (figures.INK, figures.GREEN, figures.BLUE, figures.VERMILION, figures.ORANGE), strict=True))


def _after(measure: str) -> Callable[[Record], float]:
    return lambda record: record["after"][measure]


_PANELS = {
    "return, last": returns("last"),
    "decoded error at 16 steps": _after("decoded_error"),
    "reward cross-entropy": _after("reward_cross_entropy"),
    "reward correlation": _after("reward_correlation"),
}


@figures.drawing
def figure(records: Records) -> Figure:
    """A row for each task; a dot for each seed, a bar at the mean, and a line at the frozen arm's."""
    drawn = Figure(figsize=(10, 0.4 + 1.5 * len(records)), layout="constrained")
    for (task, arms), row in zip(
        records.items(), drawn.subplots(len(records), len(_PANELS), squeeze=False), strict=True
    ):
        for axes, (name, value) in zip(row, _PANELS.items(), strict=True):
            _panel(axes, arms, value)
            axes.set_xlabel(name)
            if "entropy" in name:
                _logarithmic(axes)
        row[0].set_title(task)
        for axes in row[1:]:
            axes.set_yticklabels([])
    return drawn


def _panel(axes: Axes, arms: Arms, value: Callable[[Record], float]) -> None:
    order = [arm for arm in ARMS if arm in arms]
    for place, arm in enumerate(order):
        values = [value(record) for record in arms[arm].values()]
        axes.plot(values, [place] * len(values), "o", color=_COLOURS[arm], alpha=0.5, markersize=4)
        axes.plot(statistics.mean(values), place, "|", color=_COLOURS[arm], markersize=13, markeredgewidth=2.5)
    if "frozen" in arms:
        mean = statistics.mean(value(record) for record in arms["frozen"].values())
        axes.axvline(mean, color=figures.MUTED, linewidth=0.9, linestyle="--")
    axes.set_yticks(range(len(order)), order)
    axes.set_ylim(len(order) - 0.5, -0.5)


def _logarithmic(axes: Axes) -> None:
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))  # a range of less than a decade has labels too
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_locator(NullLocator())
