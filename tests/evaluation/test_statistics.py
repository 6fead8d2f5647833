"""The statistics against scipy's, closed forms, and their own definitions."""

import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from lit_pwm.errors import LitPWMError
from lit_pwm.measures.statistics import (
    detectable_difference,
    holm,
    interquartile_mean,
    paired_differences,
    probability_of_improvement,
    seed_means,
    share_interval,
    t_interval,
    t_probability,
)

FINITE = st.floats(-1e3, 1e3, allow_nan=False)
SAMPLES = [[1.0, 4.0], [529.0, 1.5, -77.0], np.random.default_rng(0).gamma(2.0, 100.0, 30).tolist()]


def by_seed(*values):
    return {str(seed): value for seed, value in enumerate(values)}


def test_seeds_are_averaged_over_tasks_by_name():
    scores = {"a": {"0": 1.0, "1": 2.0, "2": 9.0}, "b": {"1": 6.0, "0": 3.0}}
    assert seed_means(scores) == {"0": 2.0, "1": 4.0}  # seed 2 has no run in b
    assert seed_means({"a": {"0": 1.0}, "b": {"1": 1.0}}) == {}


def test_differences_are_paired_by_seed_and_task():
    ours = {"a": by_seed(10.0, 20.0, 30.0), "b": by_seed(0.0, 0.0, 0.0)}
    theirs = {"b": {"2": 1.0, "1": 2.0, "0": 3.0}, "a": {"2": 0.0, "0": 4.0, "1": 8.0}}
    assert paired_differences(ours, theirs) == {"0": (10 - 7) / 2, "1": (20 - 10) / 2, "2": (30 - 1) / 2}
    assert paired_differences(ours, {"a": {"1": 0.0}, "b": {"1": 0.0, "7": 5.0}}) == {"1": 10.0}
    assert paired_differences(ours, {"a": {"8": 0.0}, "b": {"8": 0.0}}) == {}


def test_methods_with_different_tasks_are_not_compared():
    ours, theirs = {"a": by_seed(1.0), "b": by_seed(2.0)}, {"c": by_seed(1.0), "b": by_seed(2.0)}
    for compare in (paired_differences, probability_of_improvement):
        with pytest.raises(LitPWMError, match=r"only the first has \['a'\], only the second \['c'\]"):
            compare(ours, theirs)


@given(st.lists(FINITE, min_size=1, max_size=40))
def test_the_interquartile_mean_is_scipys_trimmed_mean(values):
    assert interquartile_mean(values) == pytest.approx(scipy.stats.trim_mean(values, 0.25), rel=1e-9, abs=1e-9)


def test_the_interquartile_mean_by_hand_and_batched():
    assert interquartile_mean([0, 4, 1, 5, 2, 6, 3, 1000]) == (2 + 3 + 4 + 5) / 4
    assert interquartile_mean([[5, 1, 2, 3, -90], [7, 7, 7, 7, 7]]).tolist() == [2, 7]


@given(st.lists(FINITE, min_size=1, max_size=15), st.lists(FINITE, min_size=1, max_size=15))
def test_the_probability_of_improvement_is_the_mann_whitney_statistic(scores, others):
    u = scipy.stats.mannwhitneyu(scores, others, method="asymptotic").statistic
    found = probability_of_improvement({"a": by_seed(*scores)}, {"a": by_seed(*others)})
    assert found == pytest.approx(u / (len(scores) * len(others)))


def test_the_probability_of_improvement_is_the_mean_over_tasks_and_ties_count_half():
    scores, others = {"a": by_seed(1, 1), "b": by_seed(5)}, {"b": by_seed(4, 6), "a": by_seed(1, 1)}
    assert probability_of_improvement(scores, others) == (0.5 + 0.5) / 2


@pytest.mark.parametrize("values", SAMPLES)
@pytest.mark.parametrize("confidence", [0.5, 0.95, 0.999])
def test_the_interval_and_the_p_value_are_scipys(values, confidence):
    test = scipy.stats.ttest_1samp(values, 0)
    assert t_interval(values, confidence) == pytest.approx(tuple(test.confidence_interval(confidence)), rel=1e-9)
    assert t_probability(values) == pytest.approx(test.pvalue, rel=1e-9)


def test_the_interval_by_hand():
    # Three seeds: quantile 4.302653 of two degrees of freedom, deviation 10, over the root of 3.
    low, high = t_interval([90.0, 100.0, 110.0])
    assert (low, high) == pytest.approx((100 - 24.84138, 100 + 24.84138), abs=1e-4)


def test_a_single_score_has_no_interval_no_test_and_nothing_to_detect():
    assert t_interval([5.0]) is t_probability([5.0]) is detectable_difference([5.0]) is None


def test_scores_that_do_not_differ():
    assert t_interval([3.0, 3.0]) == (3.0, 3.0)
    assert (t_probability([3.0, 3.0]), t_probability([0.0, 0.0])) == (0.0, 1.0)
    assert detectable_difference([3.0, 3.0]) == 0


def test_holms_adjustment_by_hand():
    # Holm (1979): sorted .005, .01, .03, .04 times 4, 3, 2, 1, none less than one before it.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([0.2]) == [0.2]
    assert holm([]) == []


def test_holm_keeps_the_chance_of_any_false_claim():
    rng = np.random.default_rng(0)
    false = [min(holm(scipy.stats.norm.sf(rng.normal(size=6)).tolist())) < 0.05 for _ in range(4000)]
    assert np.mean(false) == pytest.approx(0.05, abs=0.014)  # four standard errors


@pytest.mark.parametrize("number", [2, 3, 5, 10, 40])
@pytest.mark.parametrize("independent", [False, True])
def test_a_detectable_difference_has_the_power_it_says(number, independent):
    values = np.random.default_rng(number).normal(0, 70, number)
    found = detectable_difference(values, power=0.8, independent=independent)
    freedom = (number - 1) * (1 + independent)
    critical = scipy.stats.t.ppf(0.975, freedom)
    shift = found / (values.std(ddof=1) * math.sqrt((1 + independent) / number))
    assert scipy.stats.nct.sf(critical, freedom, shift) == pytest.approx(0.8, abs=1e-5)


def test_a_detectable_difference_is_what_a_simulation_detects():
    rng, number = np.random.default_rng(1), 5
    observed = rng.normal(0, 1, number)
    observed /= observed.std(ddof=1)  # so that the simulated deviation is the observed one
    difference = detectable_difference(observed)
    assert difference is not None
    samples = rng.normal(difference, 1, (100_000, number))
    shown = np.abs(samples.mean(1)) > scipy.stats.t.ppf(0.975, number - 1) * samples.std(1, ddof=1) / number**0.5
    assert shown.mean() == pytest.approx(0.8, abs=0.01)


@pytest.mark.parametrize(("found", "number"), [(0, 5), (1, 5), (4, 5), (5, 5), (13, 15), (0, 1)])
def test_the_interval_of_a_share_is_scipys_exact_one(found, number):
    expected = scipy.stats.binomtest(found, number).proportion_ci(method="exact")
    assert share_interval(found, number) == pytest.approx((expected.low, expected.high), abs=1e-9)


@pytest.mark.parametrize("share", [0.05, 0.3, 0.58, 0.79])
@pytest.mark.parametrize("number", [3, 5, 10])
def test_the_interval_of_a_share_covers_at_least_as_often_as_it_says(share, number):
    covers = [low <= share <= high for low, high in (share_interval(k, number) for k in range(number + 1))]
    chance = scipy.stats.binom.pmf(np.arange(number + 1), number, share)
    assert chance @ covers >= 0.95


@pytest.mark.parametrize(("found", "number"), [(-1, 3), (4, 3), (0, 0)])
def test_a_share_of_no_runs_or_more_than_all_is_refused(found, number):
    with pytest.raises(LitPWMError, match="0 ≤ found ≤ number"):
        share_interval(found, number)


def test_no_scores_are_refused():
    for statistic in (t_interval, t_probability, interquartile_mean, detectable_difference):
        for nothing in ([], 3.0):
            with pytest.raises(LitPWMError, match="without a single score"):
                statistic(nothing)
    for statistic in (seed_means, lambda x: paired_differences(x, x), lambda x: probability_of_improvement(x, x)):
        with pytest.raises(LitPWMError, match="no task at all"):
            statistic({})
