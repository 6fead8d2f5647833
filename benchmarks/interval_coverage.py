"""How often the reports' intervals hold what they should, simulated with the factorial's records.

    python benchmarks/interval_coverage.py          # the table of docs/metrics.md; about a minute

A score is a run's mean return in a task. Two populations of scores are drawn from: normal ones with the records'
variances within tasks and covariances between them over seeds, and the records' scores themselves, drawn anew with all
that is not normal in them: cup-catch is all or nothing, and cartpole-balance fails as a whole now and then. Intervals
are the product's own (`lit_pwm.measures.statistics.t_interval`); beside them the percentile bootstrap within tasks.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from pages import DOCS, markdown, put

from lit_pwm.experiments.report.grid import Grid
from lit_pwm.experiments.sweep.record_grid import grid_of
from lit_pwm.experiments.sweep.records import read_records
from lit_pwm.measures.statistics import Interval, t_interval

RESULTS = Path(__file__).parent / "results" / "factorial"
SEEDS = (3, 5, 10)
Draw = Callable[[np.random.Generator, int], np.ndarray]
"""(generator, seeds) → scores [seeds, tasks]."""


def records_grid(folder: Path = RESULTS) -> Grid:
    return grid_of(read_records(sorted(folder.glob("*.json"))))


def observed(grid: Grid) -> np.ndarray:
    """Scores of the best checkpoints, [cells, seeds, tasks]."""
    scores = [grid.scores(cell, "best") for cell in grid.cells]
    seeds = sorted({run.seed for run in grid.runs})
    return np.array([[[cell[task][seed] for task in grid.tasks] for seed in seeds] for cell in scores])


def normal(scores: np.ndarray) -> tuple[Draw, np.ndarray]:
    """Normal scores about zero with the covariance of tasks over seeds, pooled over cells; their means [tasks]."""
    rest = (scores - scores.mean(1, keepdims=True)).reshape(-1, scores.shape[2])
    covariance = rest.T @ rest / (scores.shape[0] * (scores.shape[1] - 1))
    root = np.linalg.cholesky(covariance)
    return lambda rng, seeds: rng.normal(size=(seeds, len(root))) @ root.T, np.zeros(len(root))


def drawn_anew(scores: np.ndarray) -> tuple[Draw, np.ndarray]:
    """The records' scores, of all cells together, drawn with replacement and each task by itself; their means."""
    pool = scores.reshape(-1, scores.shape[2])
    tasks = np.arange(pool.shape[1])
    return lambda rng, seeds: pool[rng.integers(len(pool), size=(seeds, len(tasks))), tasks], pool.mean(0)


def bootstrap(scores: np.ndarray, rng: np.random.Generator, resamples: int = 500) -> Interval:
    """The percentile bootstrap of the mean over tasks, resampled within each task: what the reports had before."""
    seeds, tasks = scores.shape
    means = scores[rng.integers(seeds, size=(resamples, seeds, tasks)), np.arange(tasks)].mean((1, 2))
    return Interval(*np.quantile(means, (0.025, 0.975)))


def coverage(
    draw: Draw, centre: float, interval: Callable[[np.ndarray], Interval | None], seeds: int, trials: int, seed: int = 0
) -> float:
    """How often an interval of drawn scores holds the mean that they are drawn around."""
    rng = np.random.default_rng(seed)
    ends = np.array([interval(draw(rng, seeds)) for _ in range(trials)])
    return float(np.mean((ends[:, 0] <= centre) & (centre <= ends[:, 1])))


def cases(grid: Grid) -> dict[str, tuple[Draw, float, Callable[[np.ndarray], Interval | None]]]:
    """What is simulated → how scores are drawn, what their interval should hold, and the interval."""
    scores, resampling = observed(grid), np.random.default_rng(1)
    smooth, zero = normal(scores)
    anew, means = drawn_anew(scores)

    def over_tasks(drawn: np.ndarray) -> Interval | None:
        return t_interval(drawn.mean(1))

    def of_task(place: int) -> Callable[[np.ndarray], Interval | None]:
        return lambda drawn: t_interval(drawn[:, place])

    def twice(rng: np.random.Generator, seeds: int) -> np.ndarray:
        return anew(rng, seeds) - anew(rng, seeds)

    return {
        "normal scores, mean over tasks": (smooth, 0.0, over_tasks),
        "the records' scores, mean over tasks": (anew, float(means.mean()), over_tasks),
        "the records' scores, difference of two cells": (twice, 0.0, over_tasks),
        **{
            f"the records' scores, {task} alone": (anew, float(means[place]), of_task(place))
            for place, task in enumerate(grid.tasks)
        },
        "percentile bootstrap, normal scores": (smooth, float(zero.mean()), lambda x: bootstrap(x, resampling)),
    }


def table(trials: int = 20_000) -> str:
    rows = [
        [
            name,
            *(
                f"{100 * coverage(*case, seeds, trials if 'bootstrap' not in name else trials // 10):.1f}"
                for seeds in SEEDS
            ),
        ]
        for name, case in cases(records_grid()).items()
    ]
    return markdown(["how often a 95 % interval holds the mean, in %", *(f"{seeds} seeds" for seeds in SEEDS)], rows)


if __name__ == "__main__":
    text = table()
    print(text)
    put(DOCS / "metrics.md", "coverage", text)
