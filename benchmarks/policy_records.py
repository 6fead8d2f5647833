"""What `policy_study` recorded, and how tables show it: means over seeds, and differences and ratios at equal seeds."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from lit_pwm.experiments.report.grid import Estimate, geometric_estimate, mean_estimate
from lit_pwm.measures.statistics import detectable_difference

Record = dict[str, Any]
Arms = dict[str, dict[int, Record]]
"""Arm → seed → record."""
Records = dict[str, Arms]
"""Task → its arms."""
NONE = "There are no records of this study yet."
_NOTHING = "–"


def read(folder: Path) -> Records:
    """All records in a folder; nothing if there is none."""
    found: Records = {}
    for path in sorted(folder.glob("*.json")):
        record = json.loads(path.read_text())
        found.setdefault(record["task"], {}).setdefault(record["arm"], {})[record["seed"]] = record
    return found


def returns(kind: str) -> Callable[[Record], float]:
    """What takes a record's mean return, `last` or `best`."""
    return lambda record: statistics.mean(record[kind])


def over_seeds(arm: dict[int, Record], value: Callable[[Record], float | None], digits: int = 0) -> str:
    """The mean of a value and its interval, of the seeds that have it."""
    values = [found for record in arm.values() if (found := value(record)) is not None]
    return _text(mean_estimate(values), digits)


def difference(arms: Arms, arm: str, other: str, value: Callable[[Record], float]) -> tuple[str, str]:
    """How much an arm exceeds another at equal seeds, with its interval, and what difference as many seeds would show.

    Both are a dash where no seed has both, and the second where one has.
    """
    gaps = [ours - theirs for ours, theirs in _pairs(arms, arm, other, value)]
    estimate, least = mean_estimate(gaps), detectable_difference(gaps) if gaps else None
    if estimate is None:
        return _NOTHING, _NOTHING
    ends = "1 seed" if estimate.interval is None else f"{estimate.interval.low:+.0f} to {estimate.interval.high:+.0f}"
    return f"{estimate.value:+.0f} ({ends})", _NOTHING if least is None else f"{least:.0f}"


def ratio(arms: Arms, arm: str, other: str, value: Callable[[Record], float], digits: int = 3) -> str:
    """An arm's value over another's at equal seeds: geometric mean over seeds, with the interval of its logarithm.

    Where not all values are above zero, it is the mean and its interval.
    """
    pairs = _pairs(arms, arm, other, value)
    if pairs and all(min(pair) > 0 for pair in pairs):
        return _text(geometric_estimate([math.log(ours / theirs) for ours, theirs in pairs]), digits)
    return _text(mean_estimate([ours / theirs for ours, theirs in pairs]), digits)


def minutes(records: Records) -> str:
    """What records took: a sentence."""
    every = [record for arms in records.values() for arm in arms.values() for record in arm.values()]
    own = sum(record["cpu_seconds"] for record in every)
    told = f"These {len(every)} policies took {own / 60:.0f} CPU minutes with their evaluations"
    # Several policies share a pre-training; its seconds, a fraction with many digits, are what tells it from others.
    models = {record["pretraining"]["cpu_seconds"] for record in every if record.get("pretraining")}
    if models:
        told += f", and {len(models)} pre-trainings of world models {sum(models) / 60:.0f}"
    unknown = any(record["model_updates"] and not record.get("pretraining") for record in every)
    return f"{told}; what other pre-trainings took was not recorded." if unknown else f"{told}."


def _pairs(arms: Arms, arm: str, other: str, value: Callable[[Record], float]) -> list[tuple[float, float]]:
    ours, theirs = arms.get(arm, {}), arms.get(other, {})
    return [(value(record), value(theirs[seed])) for seed, record in ours.items() if seed in theirs]


def _text(estimate: Estimate | None, digits: int) -> str:
    if estimate is None:
        return _NOTHING
    value, ends = estimate.shown(digits)
    return f"{value} ({ends})"


def costs(arm: Sequence[Record]) -> tuple[str, str]:
    """Mean FLOPs of an arm's policies, pre-training included, and their CPU minutes, without."""
    flops, seconds = (statistics.mean(record[key] for record in arm) for key in ("flops", "cpu_seconds"))
    return f"{flops:.2e}", f"{seconds / 60:.1f}"
