"""By how much the sampled flow differs from its controls: paired over seeds, with Student's t."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from pages import markdown

from lit_pwm.statistics import detectable_difference, holm, t_interval, t_probability

FLOW, TWIN = "flow-energy-sharp", "one-step-energy"
_OTHERS = "refinement-energy", "mlp-energy", "refinement-residuals", "mlp-residuals", "gaussian", "mlp", "refinement"

Scores = Mapping[str, Mapping[int, float]]
"""Arm → seed → score."""


def contrasts(results: Path, task: str) -> str:
    """Markdown tables of the flow's differences: from its twin of one Euler step, and from the other controls.

    The first is the one that the page asks for, with what as many seeds can detect (80 % power, two-sided 5 %). Of the
    others, those whose p value, corrected for their number in the column (Holm), is below .05 are in bold.
    """
    columns = _columns(results, task)
    twin = {name: _differences(scores, TWIN) for name, (scores, _) in columns.items()}
    rows = [
        (what, *(function(twin[name], digits) for name, (_, digits) in columns.items()))
        for what, function in (("mean", _mean), ("95 % interval", _interval), ("detectable", _detectable))
    ]
    first = markdown((f"{FLOW} − {TWIN}", *columns), rows)
    cells: dict[str, list[str]] = {other: [] for other in _OTHERS}
    for scores, digits in columns.values():
        differences = {other: _differences(scores, other) for other in _OTHERS}
        tested = {o: p for o, d in differences.items() if len(d) > 1 and (p := t_probability(d)) is not None}
        corrected = dict(zip(tested, holm([*tested.values()]), strict=True))
        for other, values in differences.items():
            text = f"{_mean(values, digits)} ({_interval(values, digits)})" if len(values) else "–"
            cells[other].append(f"**{text}**" if corrected.get(other, 1) < 0.05 else text)
    second = markdown(
        (f"{FLOW} −", *columns), [(other, *texts) for other, texts in cells.items() if set(texts) != {"–"}]
    )
    return f"{first}\n\n{second}"


def _columns(results: Path, task: str) -> dict[str, tuple[Scores, int]]:
    """Name of a measure → its scores and how many digits to show."""
    predictions, policies = _records(results / "records", task, "arm"), _records(results / "policies", task, "model")
    energy = {
        f"energy score {k}" if k == "1" else k: (_scores(predictions, lambda r, k=k: r["energy_score"][k]), 3)
        for k in ("1", "4", "16")
    }
    returns = {
        f"return, {which}": (_scores(policies, lambda r, w=which: np.mean(r[w])), 0) for which in ("best", "last")
    }
    return energy | returns


def _records(folder: Path, task: str, kind: str) -> dict[str, dict[int, dict[str, Any]]]:
    found: dict[str, dict[int, dict[str, Any]]] = defaultdict(dict)
    for path in sorted(folder.glob("*.json")):
        record = json.loads(path.read_text())
        if record["task"] == task:
            found[record[kind]][record["seed"]] = record
    return found


def _scores(records: Mapping[str, Mapping[int, Any]], score: Callable[[Any], Any]) -> Scores:
    return {arm: {seed: float(score(record)) for seed, record in seeds.items()} for arm, seeds in records.items()}


def _differences(scores: Scores, other: str) -> np.ndarray:
    """[N], over the seeds that both have."""
    flow, control = scores.get(FLOW, {}), scores.get(other, {})
    return np.array([flow[seed] - control[seed] for seed in sorted(flow) if seed in control])


def _mean(values: np.ndarray, digits: int) -> str:
    return f"{values.mean():+.{digits}f}" if len(values) else "–"


def _interval(values: np.ndarray, digits: int) -> str:
    interval = t_interval(values) if len(values) else None
    return "–" if interval is None else f"{interval.low:+.{digits}f} to {interval.high:+.{digits}f}"


def _detectable(values: np.ndarray, digits: int) -> str:
    found = detectable_difference(values) if len(values) else None
    return "–" if found is None else f"{found:.{digits}f}"
