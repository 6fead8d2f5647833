"""A grid of runs: cells of an experiment, each with its runs' results in every task, and the statistics of them.

A cell is one combination of what is compared, such as (world model, policy). Seeds are its runs. The score of a run in
a task is its mean return over episodes; scores are averaged over tasks for each seed, and statistics are over seeds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from lit_pwm.errors import LitPWMError
from lit_pwm.measures.statistics import (
    Interval,
    Scores,
    interquartile_mean,
    probability_of_improvement,
    seed_means,
    t_interval,
)
from lit_pwm.tasks.registry import returns_have_dm_controls_scale

Labels = tuple[str, ...]
Measure = Callable[[Sequence[float]], float | np.floating]
"""Episodes' returns of a run → one figure."""


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
    """A statistic over seeds.

    Attributes:
        value: the statistic.
        interval: its 95 % interval; None for a single seed, and for statistics that are shown without.
        seeds: how many there are, where an interval belongs to the statistic.
    """

    value: float
    interval: Interval | None = None
    seeds: int | None = None

    def shown(self, digits: int = 0) -> tuple[str, str]:
        """The value, and its interval or that there is a single seed, as text."""
        text = f"{self.value:.{digits}f}"
        if self.interval is None:
            return text, "1 seed" if self.seeds == 1 else ""
        return text, f"{self.interval.low:.{digits}f} to {self.interval.high:.{digits}f}"


def mean_estimate(scores: Collection[float]) -> Estimate | None:
    """The mean of the seeds' scores with Student's t interval; None without a score."""
    values = list(scores)
    return Estimate(float(np.mean(values)), t_interval(values), len(values)) if values else None


class Grid:
    """The runs of an experiment by cell and task.

    Figures over all tasks are over `pooled`: those whose returns have one scale, dm_control's, or the only one.

    Args:
        axes: what is compared → its labels in order; the first cell is the one that others are compared with.
        runs: all runs.
        thresholds: task → the return from which an episode counts as having found what the task is about, for tasks
            whose returns are all or nothing.

    Raises:
        LitPWMError: two runs of one cell, task and seed.
    """

    def __init__(
        self,
        axes: Mapping[str, Sequence[str]],
        runs: Sequence[RunResult],
        thresholds: Mapping[str, float] | None = None,
    ) -> None:
        self.axes = {axis: tuple(labels) for axis, labels in axes.items()}
        self.runs = tuple(runs)
        self.thresholds = dict(thresholds or {})
        present = {run.cell for run in runs}
        order = [{label: place for place, label in enumerate(labels)} for labels in self.axes.values()]
        self.cells = sorted(present, key=lambda cell: [places[x] for places, x in zip(order, cell, strict=True)])
        self.tasks = tuple(dict.fromkeys(run.task for run in runs))
        alike = tuple(task for task in self.tasks if returns_have_dm_controls_scale(task))
        self.pooled = alike if len(self.tasks) > 1 else self.tasks
        self._by_place: dict[tuple[Labels, str], dict[str, RunResult]] = {}
        for run in runs:
            seeds = self._by_place.setdefault((run.cell, run.task), {})
            if run.seed in seeds:
                raise LitPWMError(
                    f"Two results to report are of the same run: cell {' / '.join(run.cell)!r}, task {run.task!r}, "
                    f"seed {run.seed}. Name each run once."
                )
            seeds[run.seed] = run

    @property
    def baseline(self) -> Labels:
        """The cell that the others are compared with."""
        return self.cells[0]

    def of(self, cell: Labels, task: str | None = None) -> list[RunResult]:
        """The runs of a cell, in one task or in all."""
        tasks = self.tasks if task is None else (task,)
        return [run for name in tasks for run in self._by_place.get((cell, name), {}).values()]

    def scores(self, cell: Labels, kind: str, measure: Measure = np.mean) -> dict[str, dict[str, float]]:
        """Task → seed → a measure of the run's returns (their mean), of tasks in which the cell has any."""
        scores = {
            task: {run.seed: float(measure(run.returns[kind])) for run in self.of(cell, task) if run.returns.get(kind)}
            for task in self.tasks
        }
        return {task: values for task, values in scores.items() if values}

    def whole(self, cell: Labels, kind: str) -> Scores | None:
        """The scores of a cell in the pooled tasks; None unless it has runs in each, some of them of the same seed."""
        scores = {task: values for task, values in self.scores(cell, kind).items() if task in self.pooled}
        return scores if len(scores) == len(self.pooled) > 0 and seed_means(scores) else None

    def estimate(self, cell: Labels, kind: str) -> Estimate | None:
        """The mean over tasks, and over the seeds that have a run in each; None where no seed has."""
        scores = self.whole(cell, kind)
        return None if scores is None else mean_estimate(seed_means(scores).values())

    def iqm(self, cell: Labels, kind: str) -> Estimate | None:
        """The interquartile mean over seeds of their means over tasks, without an interval."""
        scores = self.whole(cell, kind)
        return None if scores is None else Estimate(float(interquartile_mean([*seed_means(scores).values()])))

    def in_task(self, cell: Labels, task: str, kind: str) -> Estimate | None:
        """The mean over a task's runs."""
        return mean_estimate(self.scores(cell, kind).get(task, {}).values())

    def improvement(self, cell: Labels, kind: str) -> Estimate | None:
        """The probability that a run of the cell beats one of the baseline in the same task, without an interval.

        None for the baseline itself, and unless both have runs in every task.
        """
        ours, theirs = self.whole(cell, kind), self.whole(self.baseline, kind)
        if cell == self.baseline or ours is None or theirs is None:
            return None
        return Estimate(probability_of_improvement(ours, theirs))

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

    def ratio(self, cell: Labels, name: str, task: str) -> Estimate | None:
        """Another figure in a task over the baseline's at the same seed: geometric mean over seeds, interval of logs.

        None for the baseline itself, and where no seed has both figures, above zero.
        """
        ours, theirs = (
            {run.seed: run.figures[name] for run in self.of(x, task) if run.figures.get(name, 0) > 0}
            for x in (cell, self.baseline)
        )
        logs = [math.log(value / theirs[seed]) for seed, value in ours.items() if seed in theirs]
        return geometric_estimate(logs) if logs and cell != self.baseline else None


def geometric_estimate(logarithms: Sequence[float]) -> Estimate:
    """The geometric mean of what these are the logarithms of, one for each seed, with its interval."""
    interval = t_interval(logarithms)
    ends = None if interval is None else Interval(math.exp(interval.low), math.exp(interval.high))
    return Estimate(math.exp(float(np.mean(logarithms))), ends, len(logarithms))
