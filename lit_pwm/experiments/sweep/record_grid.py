"""The grid of a sweep's runs, made from its records."""

from __future__ import annotations

from collections.abc import Sequence

from lit_pwm.experiments.record_types import SweepRecord
from lit_pwm.experiments.report.discovery import all_or_nothing
from lit_pwm.experiments.report.grid import Grid, RunResult
from lit_pwm.experiments.run_identity import STRATA
from lit_pwm.experiments.sweep.quantities import figures_of


def grid_of(records: Sequence[SweepRecord]) -> Grid:
    """The grid of a sweep's records, as `read_records` gives them."""
    first = records[0]
    labels: dict[str, dict[str, None]] = {axis: {} for axis in first["axes"] if axis not in STRATA}
    for record in records:
        for axis in labels:
            labels[axis] |= dict.fromkeys(record["axes"][axis])
    runs = []
    for record in records:
        rows = record["policy"]["curve"]["rows"] if "policy" in record else []
        columns = record["policy"]["curve"]["columns"] if "policy" in record else []
        tasks = dict.fromkeys(task for found in record["returns"].values() for task in found["tasks"])
        for task in tasks:
            runs.append(
                RunResult(
                    cell=tuple(record["labels"][axis] for axis in labels),
                    task=task,
                    seed=record["labels"].get("seed", "0"),
                    returns={
                        kind: found["tasks"].get(task, {}).get("returns", ())
                        for kind, found in record["returns"].items()
                    },
                    curve={name: [row[i] for row in rows] for i, name in enumerate(columns)},
                    figures=figures_of(record, task),
                )
            )
    return Grid({axis: list(found) for axis, found in labels.items()}, runs, _thresholds(records, runs))


def _thresholds(records: Sequence[SweepRecord], runs: Sequence[RunResult]) -> dict[str, float]:
    """Task → the return from which an episode found it: as the sweep file says, else where returns show it."""
    returns: dict[str, list[float]] = {}
    for run in runs:
        returns.setdefault(run.task, []).extend(next(iter(run.returns.values()), ()))
    shown = {task: all_or_nothing(values) for task, values in returns.items()}
    said = {task: value for record in records for task, value in record.get("discovery", {}).items() if task in returns}
    return {task: value for task, value in (shown | said).items() if value is not None}


def world_models_of(grid: Grid) -> Grid:
    """The grid of world models alone, where they are an axis."""
    return grid.along("world_model") if "world_model" in grid.axes else grid
