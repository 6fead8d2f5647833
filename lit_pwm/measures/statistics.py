"""Statistics of few, expensive scores: what several runs say of a method, and how far it can be trusted.

The unit is the run, known by its seed. Runs of a seed share data, batches and often a world model over tasks, so that
scores of tasks are first averaged for each seed (`seed_means`), and every statistic is one over seeds. Methods are
compared by their differences at the same seeds (`paired_differences`). Tasks and seeds are matched by name.

Intervals are Student's t, which cover what they say if scores over seeds are about normal, from two seeds on; a single
seed has none. Where scores of a task are all or nothing, no interval of a few seeds covers as it says
(docs/metrics.md has by how much), and a share with an exact interval (`share_interval`) says more.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from lit_pwm.errors import LitPWMError

Scores = Mapping[str, Mapping[str, float]]
"""Task → seed → the run's score."""


class Interval(NamedTuple):
    """A confidence interval."""

    low: float
    high: float


def seed_means(scores: Scores) -> dict[str, float]:
    """Seed → the mean over tasks of its scores, of the seeds that have one in every task.

    Raises:
        LitPWMError: no task at all.
    """
    if not scores:
        raise LitPWMError("A statistic was asked for of no task at all; pass the scores of at least one.")
    first, *others = scores.values()
    whole = [seed for seed in first if all(seed in other for other in others)]
    return {seed: float(np.mean([task[seed] for task in scores.values()])) for seed in whole}


def paired_differences(scores: Scores, others: Scores) -> dict[str, float]:
    """Seed → how much a method's mean over tasks exceeds another's, of the seeds that both have in every task.

    Raises:
        LitPWMError: the methods have scores of different tasks, or of none.
    """
    check_same_tasks(scores, others)
    ours, theirs = seed_means(scores), seed_means(others)
    return {seed: value - theirs[seed] for seed, value in ours.items() if seed in theirs}


def check_same_tasks(scores: Scores, others: Scores) -> None:
    """Refuse to compare methods that have scores of different tasks.

    Raises:
        LitPWMError: they do; the tasks of only one are named.
    """
    if set(scores) != set(others):
        alone = [sorted(set(a) - set(b)) for a, b in ((scores, others), (others, scores))]
        raise LitPWMError(
            f"Two methods were to be compared that have scores of different tasks: only the first has {alone[0]}, only "
            f"the second {alone[1]}. Pass scores of the same tasks for both."
        )


def interquartile_mean(values: ArrayLike) -> np.ndarray:
    """The mean of the middle half of scores, over the last axis: [..., N] → [...].

    A quarter of them, rounded down, is left out at either end, as in `scipy.stats.trim_mean(values, 0.25)`: of five
    seeds the best and the worst.
    """
    ordered = np.sort(_scores(values), axis=-1)
    cut = ordered.shape[-1] // 4
    return np.mean(ordered[..., cut : ordered.shape[-1] - cut], axis=-1)


def probability_of_improvement(scores: Scores, others: Scores) -> float:
    """How likely a run of one method exceeds one of another on the same task, on average over tasks.

    Ties count half, so for a task this is the Mann-Whitney U statistic over the product of the sample sizes (Agarwal et
    al. 2021, arXiv 2108.13264, section 4). Above 0.5 the first method is better. It describes the runs at hand; whether
    a difference is more than chance, the interval of `paired_differences` tells.

    Raises:
        LitPWMError: the methods have scores of different tasks, or of none.
    """
    check_same_tasks(scores, others)
    if not scores:
        raise LitPWMError("A statistic was asked for of no task at all; pass the scores of at least one.")
    pairs = [(_scores([*ours.values()]), _scores([*others[task].values()])) for task, ours in scores.items()]
    return float(np.mean([np.mean(np.sign(a[:, None] - b) / 2 + 0.5) for a, b in pairs]))


def t_interval(values: ArrayLike, confidence: float = 0.95) -> Interval | None:
    """Student's t interval of the mean of independent scores; None for a single one, of which nothing is known.

    Args:
        values: [N], one for each run.
        confidence: the probability between the ends.
    """
    sample = _scores(values)
    if sample.size < 2:
        return None
    half = special.stdtrit(sample.size - 1, (1 + confidence) / 2) * sample.std(ddof=1) / math.sqrt(sample.size)
    return Interval(float(sample.mean() - half), float(sample.mean() + half))


def t_probability(values: ArrayLike) -> float | None:
    """The two-sided p value of Student's t test that the mean of independent scores is zero; None for a single one."""
    sample = _scores(values)
    if sample.size < 2:
        return None
    error = sample.std(ddof=1) / math.sqrt(sample.size)
    if error == 0:
        return float(sample.mean() == 0)
    return float(2 * special.stdtr(sample.size - 1, -abs(sample.mean()) / error))


def holm(probabilities: Sequence[float]) -> list[float]:
    """p values of several tests, adjusted so that any of them is below α by chance with at most probability α.

    After Holm (1979), A simple sequentially rejective multiple test procedure: the k-th smallest of m is multiplied by
    m − k + 1, and none is less than one before it.
    """
    adjusted, least = [0.0] * len(probabilities), 0.0
    for rank, place in enumerate(np.argsort(probabilities, kind="stable")):
        least = max(least, min(1.0, (len(probabilities) - rank) * probabilities[place]))
        adjusted[place] = least
    return adjusted


def detectable_difference(
    values: ArrayLike, power: float = 0.8, level: float = 0.05, independent: bool = False
) -> float | None:
    """The true difference that as many scores, deviating as much, would show; None for a single score.

    Args:
        values: [N], paired differences, of which only the deviation and the number count.
        power: how probable it should be that the t test shows it.
        level: of the two-sided test.
        independent: the values are one method's scores instead, and another's N are not paired with them.

    Returns:
        In the unit of the scores, from the noncentral t distribution.
    """
    sample = _scores(values)
    if sample.size < 2:
        return None
    freedom = (sample.size - 1) * (2 if independent else 1)
    error = sample.std(ddof=1) * math.sqrt((2 if independent else 1) / sample.size)
    critical = special.stdtrit(freedom, 1 - level / 2)
    # The other tail of the test is left out: with power 0.8 it holds less than a thousandth even for two scores.
    return float(error * special.nctdtrinc(freedom, 1 - power, critical))


def share_interval(found: int, number: int, confidence: float = 0.95) -> Interval:
    """The Clopper-Pearson interval of a share: of `number` independent runs, `found` did what was asked.

    It covers at least as often as it says, for every number and share, and usually more often.

    Raises:
        LitPWMError: not 0 ≤ found ≤ number, or no run.
    """
    if not 0 <= found <= number or number == 0:
        raise LitPWMError(f"A share was asked for of {found} among {number} runs; pass 0 ≤ found ≤ number, number ≥ 1.")
    tail = (1 - confidence) / 2
    low = 0.0 if found == 0 else float(special.betaincinv(found, number - found + 1, tail))
    high = 1.0 if found == number else float(special.betaincinv(found + 1, number - found, 1 - tail))
    return Interval(low, high)


def _scores(values: ArrayLike) -> np.ndarray:
    sample = np.asarray(values, dtype=np.float64)
    if sample.ndim == 0 or sample.shape[-1] == 0:
        raise LitPWMError("A statistic was asked for of a task without a single score; leave the task out.")
    return sample
