"""A grid of runs: cells of an experiment, each with its runs' results in every task, and the statistics of them.

A cell is one combination of what is compared, such as (world model, policy). Seeds are its runs. The score of a run in
a task is its mean return over episodes; statistics are over runs, stratified by task (Agarwal et al. 2021).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from lit_pwm.statistics import (
    Interval,
    Statistic,
    bootstrap_interval,
    improvement_interval,
    interquartile_mean,
    mean,
    probability_of_improvement,
)

Labels = tuple[str, ...]


@dataclass(frozen=True)
class RunResult:
    """One run of a cell in one task.

    Attributes:
        cell: the labels of what is compared, in the grid's order.
        task: the task.
        seed: the run's seed, as a label.
        returns: kind of checkpoint (`best`, `last`) → its episodes' returns.
        curve: columns `update`, `return`, `flops`, `seconds` → values; None where a cost was not recorded.
        figures: other figures of the run, by name, such as `policy FLOPs per update`; those it lacks are left out.
    """

    cell: Labels
    task: str
    seed: str
    returns: Mapping[str, Sequence[float]]
    curve: Mapping[str, Sequence[float | None]] = field(default_factory=dict)
    figures: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Estimate:
    """A statistic with its interval, which a single score does not have."""

    value: float
    interval: Interval | None

    def shown(self, digits: int = 0) -> tuple[str, str]:
        """The value and the interval as text."""
        if self.interval is None:
            return f"{self.value:.{digits}f}", ""
        return f"{self.value:.{digits}f}", f"{self.interval.low:.{digits}f}–{self.interval.high:.{digits}f}"


class Grid:
    """The runs of an experiment by cell and task.

    Args:
        axes: what is compared → its labels in order; the first cell is the one that others are compared with.
        runs: all runs.
    """

    def __init__(self, axes: Mapping[str, Sequence[str]], runs: Sequence[RunResult]) -> None:
        self.axes = {axis: tuple(labels) for axis, labels in axes.items()}
        self.runs = tuple(runs)
        present = {run.cell for run in runs}
        order = [{label: place for place, label in enumerate(labels)} for labels in self.axes.values()]
        self.cells = sorted(present, key=lambda cell: [places[x] for places, x in zip(order, cell, strict=True)])
        self.tasks = tuple(dict.fromkeys(run.task for run in runs))

    @property
    def baseline(self) -> Labels:
        """The cell that the others are compared with."""
        return self.cells[0]

    def of(self, cell: Labels, task: str | None = None) -> list[RunResult]:
        """The runs of a cell, in one task or in all."""
        return [run for run in self.runs if run.cell == cell and task in (None, run.task)]

    def scores(self, cell: Labels, kind: str) -> dict[str, list[float]]:
        """Task → the mean returns of the cell's runs, of tasks in which it has any."""
        scores = {
            task: [float(np.mean(run.returns[kind])) for run in self.of(cell, task) if run.returns.get(kind)]
            for task in self.tasks
        }
        return {task: values for task, values in scores.items() if values}

    def estimate(self, cell: Labels, kind: str, statistic: Statistic = mean) -> Estimate | None:
        """A statistic over all tasks; None unless the cell has runs in every task."""
        scores = self.scores(cell, kind)
        if len(scores) < len(self.tasks):
            return None
        return _estimate(list(scores.values()), statistic)

    def iqm(self, cell: Labels, kind: str) -> Estimate | None:
        """The interquartile mean over runs and tasks."""
        return self.estimate(cell, kind, interquartile_mean)

    def in_task(self, cell: Labels, task: str, kind: str) -> Estimate | None:
        """The mean over a task's runs."""
        scores = self.scores(cell, kind).get(task)
        return None if scores is None else _estimate([scores], mean)

    def improvement(self, cell: Labels, kind: str) -> Estimate | None:
        """The probability that a run of the cell beats one of the baseline in the same task.

        None for the baseline itself, and unless both have runs in every task.
        """
        ours, theirs = self.scores(cell, kind), self.scores(self.baseline, kind)
        if cell == self.baseline or min(len(ours), len(theirs)) < len(self.tasks):
            return None
        a, b = list(ours.values()), list(theirs.values())
        interval = improvement_interval(a, b) if all(len(x) > 1 for x in (*a, *b)) else None
        return Estimate(float(probability_of_improvement(a, b)), interval)

    def seeds(self, cell: Labels) -> str:
        """How many runs the cell has in each task: one number, or the least and the most."""
        numbers = [len(self.of(cell, task)) for task in self.tasks]
        return str(numbers[0]) if min(numbers) == max(numbers) else f"{min(numbers)}–{max(numbers)}"

    def along(self, axis: str) -> Grid:
        """The grid of one axis alone, for figures that do not depend on the others; one run of each task and seed."""
        place = list(self.axes).index(axis)
        runs = {(run.cell[place], run.task, run.seed): replace(run, cell=(run.cell[place],)) for run in self.runs}
        return Grid({axis: self.axes[axis]}, list(runs.values()))

    def figure(self, cell: Labels, name: str, task: str | None = None) -> float | None:
        """The mean of another figure over the cell's runs, in one task or in all."""
        values = [run.figures[name] for run in self.of(cell, task) if name in run.figures]
        return float(np.mean(values)) if values else None


def _estimate(scores: Sequence[Sequence[float]], statistic: Statistic) -> Estimate:
    interval = bootstrap_interval(scores, statistic) if all(len(task) > 1 for task in scores) else None
    return Estimate(float(statistic([np.asarray(task) for task in scores])), interval)
