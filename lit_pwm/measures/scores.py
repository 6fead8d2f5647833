"""Scores of predicted distributions, given as samples, against what happened.

A score is proper if no prediction scores better, on average, than the true distribution. Samples come first: M of them,
independent, of each outcome. Smaller is better.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from lit_pwm.errors import LitPWMError


def energy_score(samples: ArrayLike, outcome: ArrayLike, *, fair: bool = True) -> np.ndarray:
    """mean_i |x_i − y| − ½ mean_{i,j} |x_i − x_j|, a proper score of distributions over vectors.

    With |·| the Euclidean norm over the last axis (Gneiting & Raftery 2007, Strictly proper scoring rules, eq. 22). For
    one entry it is the continuous ranked probability score; of M equal samples it is the distance.

    Args:
        samples: [M, ..., D].
        outcome: [..., D].
        fair: take the second mean over the M(M − 1) pairs of different samples, so that its expectation is the score of
            the distribution they were drawn from, whatever M (Ferro 2014, Fair scores for ensemble forecasts). Else
            over all M² pairs: the score of the M samples themselves, M equally likely values.

    Returns:
        [...], in the unit of the entries.

    Raises:
        LitPWMError: shapes do not match, or there are too few samples: 2 are needed, without `fair` 1.
    """
    x, y = _checked(samples, outcome, 2 if fair else 1)
    distance = np.linalg.norm(x - y, axis=-1).mean(0)
    # One sample against those after it at a time: all pairs at once would take M times the samples' memory.
    pairs = sum((np.linalg.norm(x[i + 1 :] - x[i], axis=-1).sum(0) for i in range(len(x) - 1)), np.zeros(y.shape[:-1]))
    return distance - pairs / (len(x) * (len(x) - 1) if fair else len(x) ** 2)


def crps(samples: ArrayLike, outcome: ArrayLike, *, fair: bool = True) -> np.ndarray:
    """The continuous ranked probability score of each entry: `energy_score` in one dimension.

    Args:
        samples: [M, ...].
        outcome: [...].
        fair: as for `energy_score`.

    Returns:
        [...], in the unit of the entries.

    Raises:
        LitPWMError: as for `energy_score`.
    """
    x, y = _checked(samples, outcome, 2 if fair else 1)
    m = len(x)
    # Σ_{i<j} |x_i − x_j| of sorted samples is Σ_i (2i − M + 1) x_(i), with i from 0.
    weights = (2 * np.arange(m) - m + 1.0).reshape(-1, *[1] * y.ndim)
    pairs = (weights * np.sort(x, axis=0)).sum(0)
    return np.abs(x - y).mean(0) - pairs / (m * (m - 1) if fair else m**2)


def spread_error_ratio(samples: ArrayLike, outcome: ArrayLike) -> np.ndarray:
    """How the spread of samples compares with the error of their mean; 1 if they are calibrated, below it if too sure.

    √((1 + 1/M) · mean variance / mean squared error), with the unbiased variance of M samples: outcome and samples
    drawn alike give 1 for any M (Fortin et al. 2014, Why should ensemble spread match the RMSE of the ensemble mean?).

    Args:
        samples: [M, ..., N, D] for N cases.
        outcome: [..., N, D].

    Returns:
        [...]: the means are over cases and entries.

    Raises:
        LitPWMError: shapes do not match, or there are fewer than 2 samples.
    """
    x, y = _checked(samples, outcome, 2)
    variance = x.var(0, ddof=1).mean((-2, -1))
    error = np.square(x.mean(0) - y).mean((-2, -1))
    return np.sqrt((1 + 1 / len(x)) * variance / error)


def spread_ratio(samples: ArrayLike, reference: ArrayLike) -> np.ndarray:
    """The spread of samples over that of samples of the true distribution: √(mean variance / mean true variance).

    Args:
        samples: [M, ..., N, D] for N cases.
        reference: [K, ..., N, D], K independent outcomes of each case.

    Returns:
        [...]: the means of variances are over cases and entries.

    Raises:
        LitPWMError: shapes do not match, or there are fewer than 2 samples of either.
    """
    x, truth = np.asarray(samples, np.float64), np.asarray(reference, np.float64)
    _checked(truth, _checked(x, truth[0], 2)[1], 2)
    return np.sqrt(x.var(0, ddof=1).mean((-2, -1)) / truth.var(0, ddof=1).mean((-2, -1)))


def rank_histogram(samples: ArrayLike, outcome: ArrayLike, seed: int = 0) -> np.ndarray:
    """How often the outcome has each rank among its samples: flat if calibrated, heaped at both ends if too sure.

    Ties are broken at random (Hamill 2001, Interpretation of rank histograms).

    Args:
        samples: [M, ...].
        outcome: [...], each of its entries a case.
        seed: of the breaking of ties.

    Returns:
        Shares of ranks 0 to M, [M + 1], which sum to one.

    Raises:
        LitPWMError: shapes do not match, or there is no sample.
    """
    x, y = _checked(samples, outcome, 1)
    ties = (x == y).sum(0)
    rank = (x < y).sum(0) + np.random.default_rng(seed).integers(0, ties + 1)
    return np.bincount(rank.ravel(), minlength=len(x) + 1) / rank.size


def _checked(samples: ArrayLike, outcome: ArrayLike, least: int) -> tuple[np.ndarray, np.ndarray]:
    x, y = np.asarray(samples, np.float64), np.asarray(outcome, np.float64)
    if x.ndim == 0 or x.shape[1:] != y.shape:
        raise LitPWMError(
            f"A score was asked for with samples of shape {list(x.shape)} and an outcome of shape {list(y.shape)}. "
            f"Samples take the outcome's shape with one axis before it: {['M', *y.shape]}."
        )
    if len(x) < least:
        raise LitPWMError(
            f"A score that needs {least} or more samples of each outcome was asked for with {len(x)}. Draw more; for "
            f"a prediction without a spread use fair=False, which makes the score the distance."
        )
    return x, y
