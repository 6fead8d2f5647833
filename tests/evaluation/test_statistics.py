"""The statistics against scipy's, closed forms, and their own definitions."""

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from lit_pwm.errors import LitPWMError
from lit_pwm.statistics import (
    bootstrap_interval,
    improvement_interval,
    interquartile_mean,
    mean,
    probability_of_improvement,
)

FINITE = st.floats(-1e3, 1e3, allow_nan=False)


@given(st.lists(FINITE, min_size=1, max_size=40))
def test_the_interquartile_mean_is_scipys_trimmed_mean(values):
    assert interquartile_mean([values]) == pytest.approx(scipy.stats.trim_mean(values, 0.25), rel=1e-9, abs=1e-9)


@given(st.lists(st.lists(FINITE, min_size=5, max_size=5), min_size=1, max_size=6))
def test_the_interquartile_mean_of_tasks_trims_all_their_scores_together(scores):
    expected = scipy.stats.trim_mean(np.ravel(scores), 0.25)
    assert interquartile_mean(scores) == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_the_interquartile_mean_by_hand():
    assert interquartile_mean([[0, 1, 2, 3], [4, 5, 6, 1000]]) == (2 + 3 + 4 + 5) / 4


def test_the_mean_gives_each_task_the_same_weight():
    assert mean([[1.0], [2.0, 4.0], [6.0, 6.0, 6.0, 6.0]]) == (1 + 3 + 6) / 3


def test_statistics_are_batched_over_leading_axes():
    rng = np.random.default_rng(0)
    scores = [rng.normal(size=(7, 5)), rng.normal(size=(7, 3))]
    for statistic in (mean, interquartile_mean):
        expected = [statistic([task[i] for task in scores]) for i in range(7)]
        np.testing.assert_allclose(statistic(scores), expected, rtol=1e-12)


@given(st.lists(FINITE, min_size=1, max_size=15), st.lists(FINITE, min_size=1, max_size=15))
def test_the_probability_of_improvement_is_the_mann_whitney_statistic(scores, others):
    u = scipy.stats.mannwhitneyu(scores, others, method="asymptotic").statistic
    assert probability_of_improvement([scores], [others]) == pytest.approx(u / (len(scores) * len(others)))


def test_the_probability_of_improvement_of_two_normals_has_a_closed_form():
    quantiles = scipy.stats.norm.ppf((np.arange(1000) + 0.5) / 1000)
    expected = scipy.stats.norm.cdf(1 / np.sqrt(2))
    assert probability_of_improvement([quantiles + 1], [quantiles]) == pytest.approx(expected, abs=1e-3)


def test_the_probability_of_improvement_is_the_mean_over_tasks_and_ties_count_half():
    assert probability_of_improvement([[1, 1], [5]], [[1, 1], [4, 6]]) == (0.5 + 0.5) / 2
    assert probability_of_improvement([[2], [2]], [[1], [3]]) == 0.5


def test_the_interval_is_scipys_percentile_bootstrap():
    sample = np.random.default_rng(1).gamma(2.0, 100.0, 30)
    for ours, theirs in ((mean, np.mean), (interquartile_mean, lambda x, axis: scipy.stats.trim_mean(x, 0.25, axis))):
        expected = scipy.stats.bootstrap(
            (sample,), theirs, n_resamples=20_000, method="percentile", rng=np.random.default_rng(5)
        ).confidence_interval
        interval = bootstrap_interval([sample], ours, resamples=20_000)
        # Two independent sets of resamples agree up to their own noise.
        assert interval.low == pytest.approx(expected.low, abs=0.02 * sample.std())
        assert interval.high == pytest.approx(expected.high, abs=0.02 * sample.std())


def test_resampling_keeps_to_the_tasks():
    """Scores that differ between tasks but not within one leave nothing to resample."""
    assert bootstrap_interval([[1.0] * 5, [9.0] * 5]) == (5.0, 5.0)
    assert improvement_interval([[1.0] * 5, [9.0] * 5], [[0.0] * 3, [10.0] * 3]) == (0.5, 0.5)


def test_the_interval_covers_the_mean_about_as_often_as_it_says():
    rng = np.random.default_rng(2)
    samples = rng.normal(size=(400, 40))
    covered = 0
    for number, sample in enumerate(samples):
        low, high = bootstrap_interval([sample], resamples=800, seed=number)
        covered += low < 0 < high
    assert 0.90 < covered / len(samples) < 0.98  # 0.94 expected; four standard errors either side


def test_the_interval_of_a_normal_mean_has_the_closed_forms_width():
    sample = np.random.default_rng(3).normal(0, 7, 2000)
    low, high = bootstrap_interval([sample])
    assert high - low == pytest.approx(2 * 1.96 * sample.std() / np.sqrt(2000), rel=0.03)
    assert low < sample.mean() < high


def test_confidence_widens_the_interval():
    sample = np.random.default_rng(4).normal(size=20)
    narrow, wide = bootstrap_interval([sample], confidence=0.5), bootstrap_interval([sample], confidence=0.99)
    assert wide.low < narrow.low < narrow.high < wide.high


def test_a_seed_gives_the_same_interval_and_another_seed_another():
    sample = np.random.default_rng(5).normal(size=20)
    assert bootstrap_interval([sample], seed=1) == bootstrap_interval([sample], seed=1)
    assert bootstrap_interval([sample], seed=1) != bootstrap_interval([sample], seed=2)


def test_an_improvement_that_is_certain_has_an_interval_at_one():
    assert improvement_interval([[5.0, 6.0]], [[1.0, 2.0]]) == (1.0, 1.0)


@pytest.mark.parametrize("scores", [[], [[]], [[1.0], []], [3.0]])
def test_no_scores_are_refused(scores):
    for statistic in (mean, interquartile_mean, bootstrap_interval):
        with pytest.raises(LitPWMError):
            statistic(scores)


def test_methods_with_different_tasks_are_not_compared():
    with pytest.raises(LitPWMError, match="2 tasks against scores of 1"):
        probability_of_improvement([[1.0], [2.0]], [[1.0]])
