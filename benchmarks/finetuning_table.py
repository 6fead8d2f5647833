"""The table of the fine-tuning study, and whether its criteria hold, from the records that the study left.

    python benchmarks/finetuning_table.py [--results benchmarks/results/finetuning]

For each task and arm: returns of the last checkpoint, and the world model's errors on held-out slices, means over seeds
with 95 % t intervals; differences to the frozen arm are paired by seed.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from finetuning_study import ARMS, RESULTS
from pages import markdown

from lit_pwm.measures.statistics import detectable_difference, t_interval

MEASURES = ("decoded_error", "reward_cross_entropy", "reward_correlation")
_ALLOWED = 1.05
_KEPT = 0.9
Records = dict[str, dict[str, dict[int, dict[str, Any]]]]
"""Task → arm → seed → record."""


def read(folder: Path) -> Records:
    """All records in a folder."""
    found: Records = {}
    for path in sorted(folder.glob("*.json")):
        record = json.loads(path.read_text())
        found.setdefault(record["task"], {}).setdefault(record["arm"], {})[record["seed"]] = record
    return found


def of_model(record: dict[str, Any], measure: str) -> float:
    """A measure of the world model that a policy ended with."""
    return record["after"][measure]


def criteria(arms: dict[str, dict[int, dict[str, Any]]]) -> dict[str, bool]:
    """Whether the right loss keeps the frozen model's quality and the broken one loses it, by means over seeds."""
    mean = {
        arm: {
            measure: statistics.mean(of_model(record, measure) for record in arms[arm].values()) for measure in MEASURES
        }
        for arm in ("frozen", "tuned", "broken")
    }
    frozen, tuned, broken = mean["frozen"], mean["tuned"], mean["broken"]
    return {
        "tuned keeps the decoded error": tuned["decoded_error"] <= _ALLOWED * frozen["decoded_error"],
        "tuned keeps the cross-entropy": tuned["reward_cross_entropy"] <= _ALLOWED * frozen["reward_cross_entropy"],
        "tuned keeps the correlation": tuned["reward_correlation"] > _KEPT * frozen["reward_correlation"],
        "broken loses the cross-entropy": broken["reward_cross_entropy"] > _ALLOWED * frozen["reward_cross_entropy"],
        "broken loses the correlation": broken["reward_correlation"] <= _KEPT * frozen["reward_correlation"],
    }


def _shown(values: list[float], digits: int) -> str:
    interval = t_interval(values)
    mean = f"{statistics.mean(values):.{digits}f}"
    return mean if interval is None else f"{mean} ± {(interval.high - interval.low) / 2:.{digits}f}"


def _pairs(arms: dict[str, dict[int, dict[str, Any]]], arm: str) -> Iterable[tuple[dict[str, Any], dict[str, Any]]]:
    return ((record, arms["frozen"][seed]) for seed, record in arms[arm].items() if seed in arms.get("frozen", {}))


def rows(task: str, arms: dict[str, dict[int, dict[str, Any]]]) -> list[list[str]]:
    """One row for each arm."""
    found = []
    for arm in (name for name in ARMS if name in arms):
        records = list(arms[arm].values())
        gaps = [statistics.mean(a["last"]) - statistics.mean(b["last"]) for a, b in _pairs(arms, arm)]
        detected = detectable_difference(gaps) if arm != "frozen" and gaps else None
        found.append([
            task, arm, str(len(records)), _shown([statistics.mean(record["last"]) for record in records], 0),
            "" if arm == "frozen" or not gaps else _shown(gaps, 0), "" if detected is None else f"{detected:.0f}",
            *(_shown([of_model(record, measure) for record in records], 3) for measure in MEASURES),
            f"{statistics.mean(record['flops'] for record in records):.2e}",
            f"{statistics.mean(record['cpu_seconds'] for record in records) / 60:.1f}",
        ])  # fmt: skip
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=RESULTS)
    records = read(parser.parse_args().results)
    header = ["task", "arm", "seeds", "return", "− frozen", "detectable", "decoded error 16", "cross-entropy"]
    header += ["correlation", "FLOPs", "CPU minutes"]
    print(markdown(header, [row for task, arms in records.items() for row in rows(task, arms)]))
    for task, arms in records.items():
        if {"frozen", "tuned", "broken"} <= set(arms):
            print(f"\n{task}: " + "; ".join(f"{name}: {'yes' if ok else 'NO'}" for name, ok in criteria(arms).items()))


if __name__ == "__main__":
    main()
