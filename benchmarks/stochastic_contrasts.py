"""By how much the sampled flow differs from its controls: paired over seeds, with Student's t."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pages import markdown

from lit_pwm.measures.statistics import detectable_difference, holm, t_interval, t_probability

FLOW, TWIN = "flow-energy-sharp", "one-step-energy"
SAMPLERS = FLOW, TWIN, "refinement-energy", "mlp-energy"
"""Trained by the energy score of their rollouts, with the same noise."""
_OTHERWISE = (
    "flow-matching", "refinement-residuals", "mlp-residuals", "gaussian-chained", "gaussian", "refinement", "mlp",
)  # fmt: skip
"""Models that are trained by other losses."""
_VARIANTS = "flow-energy-heavy", "flow-energy-joint", "flow-energy-normal", "flow-energy"

Scores = Mapping[str, Mapping[int, float]]
"""Arm → seed → score."""


def contrasts(results: Path, task: str) -> str:
    """Markdown tables of differences: what training by the energy score brings, and what the flow does.

    The first is of the samplers' mean from models trained otherwise; the second of the flow from its twin of one Euler
    step, with what as many seeds can detect (80 % power, two-sided 5 %); then from all other controls, and from its own
    variants. Where a table has several rows, those whose p value, corrected for their number in the column (Holm), is
    below .05 are in bold. Tables without a record are left out.
    """
    columns = _columns(results, task)
    twin = {name: _differences(scores, (FLOW,), TWIN) for name, (scores, _) in columns.items()}
    rows = [
        (what, *(function(twin[name], digits) for name, (_, digits) in columns.items()))
        for what, function in (("mean", _mean), ("95 % interval", _interval), ("detectable", _detectable))
    ]
    tables = (
        _table("mean of the four samplers −", columns, SAMPLERS, _OTHERWISE),
        markdown((f"{FLOW} − {TWIN}", *columns), rows),
        _table(f"{FLOW} −", columns, (FLOW,), (*SAMPLERS[2:], *_OTHERWISE)),
        _table(f"{FLOW} − its variant", columns, (FLOW,), _VARIANTS),
    )
    return "\n\n".join(table for table in tables if table)


def _table(
    heading: str, columns: Mapping[str, tuple[Scores, int]], arms: Sequence[str], others: Sequence[str]
) -> str | None:
    """Differences of the arms' mean from each of the others, what is significant after correction in bold."""
    cells: dict[str, list[str]] = {other: [] for other in others}
    for scores, digits in columns.values():
        differences = {other: _differences(scores, arms, other) for other in others}
        tested = {o: p for o, d in differences.items() if len(d) > 1 and (p := t_probability(d)) is not None}
        corrected = dict(zip(tested, holm([*tested.values()]), strict=True))
        for other, values in differences.items():
            text = f"{_mean(values, digits)} ({_interval(values, digits)})" if len(values) else "–"
            cells[other].append(f"**{text}**" if corrected.get(other, 1) < 0.05 else text)
    filled = [place for place, column in enumerate(zip(*cells.values(), strict=True)) if set(column) != {"–"}]
    rows = [(other, *(texts[place] for place in filled)) for other, texts in cells.items() if set(texts) != {"–"}]
    names = [*columns]
    return markdown((heading, *(names[place] for place in filled)), rows) if rows else None


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


def _records(folder: Path, task: str, kind: str) -> dict[str, dict[int, dict[str, object]]]:
    found: dict[str, dict[int, dict[str, object]]] = defaultdict(dict)
    for path in sorted(folder.glob("*.json")):
        record = json.loads(path.read_text())
        if record["task"] == task:
            found[record[kind]][record["seed"]] = record
    return found


def _scores(records: Mapping[str, Mapping[int, Any]], score: Callable[[Any], Any]) -> Scores:
    return {arm: {seed: float(score(record)) for seed, record in seeds.items()} for arm, seeds in records.items()}


def _differences(scores: Scores, arms: Sequence[str], other: str) -> np.ndarray:
    """[N], the mean of the arms less the other, over the seeds that all of them have."""
    *ours, control = (scores.get(name, {}) for name in (*arms, other))
    seeds = [seed for seed in sorted(control) if all(seed in one for one in ours)]
    return np.array([np.mean([one[seed] for one in ours]) - control[seed] for seed in seeds])


def _mean(values: np.ndarray, digits: int) -> str:
    return _signed(values.mean(), digits) if len(values) else "–"


def _interval(values: np.ndarray, digits: int) -> str:
    interval = t_interval(values) if len(values) else None
    return "–" if interval is None else f"{_signed(interval.low, digits)} to {_signed(interval.high, digits)}"


def _detectable(values: np.ndarray, digits: int) -> str:
    found = detectable_difference(values) if len(values) else None
    return "–" if found is None else f"{found:.{digits}f}"


def _signed(value: float, digits: int) -> str:
    return f"{round(value, digits) + 0.0:+.{digits}f}"  # no minus before a zero
