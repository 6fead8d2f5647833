"""The figure of the study of terminations: learning curves by arm, and the reliability of the continuation heads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
from joint_figure import curve_of
from matplotlib.figure import Figure
from policy_records import Arms
from termination_arms import ARMS, HEAD

from lit_pwm.experiments.report import figures
from lit_pwm.experiments.report.reliability import draw_reliability
from lit_pwm.measures.continuation_score import EDGES, ContinuationRecord, ReliabilityBin

_COLOURS = dict(zip(ARMS, (figures.BLUE, figures.VERMILION), strict=True))


def pooled(heads: Sequence[Mapping[str, Any]]) -> ContinuationRecord:
    """The curve of all heads' predictions together; scores are means over heads."""
    bins: dict[int, list[ReliabilityBin]] = {}
    for one in heads:
        for found in one["bins"]:
            bins.setdefault(int(np.digitize(found["predicted"], EDGES[1:-1])), []).append(found)
    means = {key: float(np.mean([one[key] for one in heads])) for key in ("brier", "base_rate", "brier_base_rate")}
    sums = {key: sum(one[key] for one in heads) for key in ("transitions", "ends")}
    return cast("ContinuationRecord", {**means, **sums, "bins": [_together(bins[number]) for number in sorted(bins)]})


def _together(bins: Sequence[ReliabilityBin]) -> ReliabilityBin:
    counts = [found["count"] for found in bins]
    predicted, observed = (
        float(np.average([found[key] for found in bins], weights=counts)) for key in ("predicted", "observed")
    )
    return {"count": sum(counts), "predicted": predicted, "observed": observed}


@figures.drawing
def figure(records: Mapping[str, Arms], heads: Mapping[str, Mapping[int, Mapping[str, Any]]]) -> Figure:
    """A row for each task: mean return over seeds against updates with its interval, and a curve for each head."""
    drawn = Figure(figsize=(10, 0.4 + 3.4 * len(records)), layout="constrained")
    panels = drawn.subplots(len(records), 2, squeeze=False)
    for (task, arms), (learning, reliability) in zip(records.items(), panels, strict=True):
        for arm in (name for name in ARMS if name in arms):
            curve, dash = curve_of(arms[arm], "updates"), "-" if arm == HEAD else "--"
            learning.plot(curve.x, curve.mean, dash, color=_COLOURS[arm], label=arm, marker="o", markersize=3)
            learning.fill_between(curve.x, curve.low, curve.high, color=_COLOURS[arm], alpha=0.12, linewidth=0)
        learning.set(title=task, xlabel="updates, those of pre-training included", ylabel="return")
        learning.set_ylim(bottom=-20)
        if own := [*heads.get(task, {}).values()]:
            draw_reliability(reliability, pooled(own))
        reliability.set_title(f"held-out transitions, {len(own)} world models")
    figures.key(panels[0, 0], columns=len(ARMS))
    return drawn
