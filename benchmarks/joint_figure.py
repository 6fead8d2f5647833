"""The figure of the study of joint training: learning curves against updates and against FLOPs."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from joint_study import ARMS
from matplotlib.figure import Figure
from policy_records import Arms, Record

from lit_pwm.errors import LitPWMError
from lit_pwm.experiments.report import figures
from lit_pwm.measures.statistics import t_interval

AXES = {"updates": "updates, those of pre-training included", "flops": "FLOPs, those of pre-training included"}
_COLOURS = {"mlp": figures.BLUE, "flow": figures.VERMILION}


class Curve(NamedTuple):
    """An arm's learning curve: x, the mean over seeds, and the ends of its interval, each [evaluations]."""

    x: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray


def curve_of(arm: dict[int, Record], axis: str) -> Curve:
    """Mean over seeds with Student's t interval at each evaluation; what pre-training cost lies before the first.

    Args:
        arm: seed → record.
        axis: what the returns are drawn against, a key of `AXES`; its mean over seeds is taken.

    Raises:
        LitPWMError: the seeds were evaluated at other updates.
    """
    records = list(arm.values())
    places = {tuple(record["learning"]["updates"]) for record in records}
    if len(places) > 1:
        raise LitPWMError(
            f"The seeds of the arm {records[0]['arm']!r} were evaluated at different updates, so that their curves "
            f"have no mean. Run them again with one version of the study, into another --results."
        )
    x = np.mean([np.add(record["learning"][axis], offset_of(record, axis)) for record in records], axis=0)
    returns = np.array([record["learning"]["returns"] for record in records])
    mean, ends = returns.mean(0), [t_interval(values) for values in returns.T]
    low, high = ([m if end is None else end[i] for m, end in zip(mean, ends, strict=True)] for i in (0, 1))
    return Curve(x, mean, np.array(low), np.array(high))


def offset_of(record: Record, axis: str) -> float:
    """What a policy's pre-training cost; 0 without."""
    return 0.0 if record["pretraining"] is None else float(record["pretraining"][axis])


@figures.drawing
def figure(arms: Arms, controls: dict[str, Any]) -> Figure:
    """Two panels that share returns; joint arms are drawn through, frozen ones dashed from their pre-training on."""
    drawn = Figure(figsize=(10, 4), layout="constrained")
    panels = drawn.subplots(1, len(AXES), sharey=True)
    for axes, (axis, label) in zip(panels, AXES.items(), strict=True):
        for arm in (name for name in ARMS if name in arms):
            kind, dynamics = arm.split("-")
            curve, colour = curve_of(arms[arm], axis), _COLOURS[dynamics]
            dash, marker = ("-", "o") if kind == "joint" else ("--", "^")
            axes.plot(curve.x, curve.mean, dash, color=colour, label=arm, marker=marker, markersize=3)
            axes.fill_between(curve.x, curve.low, curve.high, color=colour, alpha=0.12, linewidth=0)
        level = {"color": figures.MUTED, "linewidth": 1.1}
        axes.axhline(controls["data"]["mean"], linestyle=":", label="data's mean", **level)
        axes.axhline(controls["best_constant"]["return"], linestyle="-.", label="best constant action", **level)
        axes.set_xlabel(label)
        axes.set_xlim(left=0)
    panels[0].set_ylabel("return")
    panels[0].set_ylim(bottom=-20)
    figures.key(panels[0], columns=6)
    return drawn
