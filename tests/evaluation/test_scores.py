"""Scores of distributions against closed forms of the Gaussian, exact enumeration, and their own definitions."""

import itertools
import math

import numpy as np
import pytest

from lit_pwm.errors import LitPWMError
from lit_pwm.measures.scores import crps, energy_score, rank_histogram, spread_error_ratio, spread_ratio


def gaussian_crps(y: float) -> float:
    """Of the standard normal (Gneiting & Raftery 2007, eq. 21)."""
    density, below = math.exp(-(y**2) / 2) / math.sqrt(2 * math.pi), (1 + math.erf(y / math.sqrt(2))) / 2
    return y * (2 * below - 1) + 2 * density - 1 / math.sqrt(math.pi)


@pytest.mark.parametrize("y", [0.0, 0.7, -2.5])
def test_crps_of_a_gaussian_is_its_closed_form(y):
    samples = np.random.default_rng(0).standard_normal(200_000)
    assert crps(samples, y) == pytest.approx(gaussian_crps(y), abs=4e-3)


def test_energy_score_of_a_gaussian_vector_is_its_closed_form():
    d, rng = 5, np.random.default_rng(1)
    samples, y = rng.standard_normal((600, 100, d)), np.zeros((100, d))
    radius = math.sqrt(2) * math.gamma((d + 1) / 2) / math.gamma(d / 2)  # E|x| of a standard normal vector
    expected = radius - math.sqrt(2) * radius / 2
    assert energy_score(samples, y).mean() == pytest.approx(expected, rel=3e-3)


def test_fair_scores_expect_the_distributions_score_whatever_the_number_of_samples():
    # All ensembles of M draws, with replacement, of a distribution over three vectors: exact expectations.
    values, weights, y = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 3.0]]), np.array([0.5, 0.3, 0.2]), np.array([0.5, 1.0])
    pairs = np.linalg.norm(values[:, None] - values, axis=-1)
    exact = weights @ np.linalg.norm(values - y, axis=-1) - weights @ pairs @ weights / 2
    for m in (2, 3, 5):
        draws = list(itertools.product(range(3), repeat=m))
        chance = np.array([weights[list(draw)].prod() for draw in draws])
        fair = np.array([energy_score(values[list(draw)], y) for draw in draws])
        assert chance @ fair == pytest.approx(exact, abs=1e-12)
        plain = np.array([energy_score(values[list(draw)], y, fair=False) for draw in draws])
        assert chance @ plain == pytest.approx(exact + weights @ pairs @ weights / (2 * m), abs=1e-12)


@pytest.mark.parametrize("fair", [True, False])
def test_scores_are_their_definitions_and_batched(fair):
    rng = np.random.default_rng(2)
    x, y = rng.standard_normal((6, 3, 4, 5)), rng.standard_normal((3, 4, 5))
    pairs = np.linalg.norm(x[:, None] - x, axis=-1).sum((0, 1)) / (6 * 5 if fair else 36)
    expected = np.linalg.norm(x - y, axis=-1).mean(0) - pairs / 2
    np.testing.assert_allclose(energy_score(x, y, fair=fair), expected, rtol=1e-12)
    np.testing.assert_allclose(crps(x, y, fair=fair), energy_score(x[..., None], y[..., None], fair=fair), atol=1e-12)


def test_a_point_prediction_scores_its_distance():
    y, point = np.array([[3.0, 4.0], [0.0, 1.0]]), np.zeros((2, 2))
    np.testing.assert_allclose(energy_score(point[None], y, fair=False), [5.0, 1.0])
    np.testing.assert_allclose(energy_score(np.stack([point] * 4), y), [5.0, 1.0])


def test_the_energy_score_is_proper():
    rng = np.random.default_rng(3)
    y = rng.standard_normal((4000, 3))
    scores = {
        (shift, scale): energy_score(shift + scale * rng.standard_normal((16, 4000, 3)), y).mean()
        for shift, scale in ((0, 1), (0, 0.6), (0, 1.6), (0.5, 1))
    }
    assert min(scores, key=scores.__getitem__) == (0, 1)


def test_spread_against_error_and_truth():
    rng = np.random.default_rng(4)
    mean, scale = rng.standard_normal((2, 2000, 3)), np.array([1.0, 3.0])[:, None, None]
    samples = mean + scale * rng.standard_normal((8, 2, 2000, 3))
    y = mean + scale * rng.standard_normal((2, 2000, 3))
    assert spread_error_ratio(samples, y) == pytest.approx([1, 1], abs=0.03)
    too_sure = mean + scale * np.array([0.5, 0.1])[:, None, None] * rng.standard_normal((8, 2, 2000, 3))
    truth = mean + scale * rng.standard_normal((5, 2, 2000, 3))
    assert spread_ratio(too_sure, truth) == pytest.approx([0.5, 0.1], rel=0.03)
    assert (spread_error_ratio(too_sure, y) < [0.55, 0.12]).all()


def test_the_rank_histogram_is_flat_where_calibrated():
    rng = np.random.default_rng(5)
    samples, y = rng.standard_normal((4, 50_000)), rng.standard_normal(50_000)
    np.testing.assert_allclose(rank_histogram(samples, y), np.full(5, 0.2), atol=0.01)
    np.testing.assert_allclose(rank_histogram(np.zeros((4, 50_000)), np.zeros(50_000)), np.full(5, 0.2), atol=0.01)
    np.testing.assert_array_equal(rank_histogram(samples, np.full(50_000, 99.0)), [0, 0, 0, 0, 1])
    heaped = rank_histogram(0.1 * samples, y)
    assert heaped[[0, -1]].min() > 0.4


def test_shapes_and_numbers_of_samples_are_checked():
    with pytest.raises(LitPWMError, match=r"samples of shape \[4, 3\].*outcome of shape \[5\].*\['M', 5\]"):
        energy_score(np.zeros((4, 3)), np.zeros(5))
    with pytest.raises(LitPWMError, match=r"needs 2 or more samples.*with 1"):
        crps(np.zeros((1, 3)), np.zeros(3))
    with pytest.raises(LitPWMError, match="needs 2 or more"):
        spread_ratio(np.zeros((2, 3, 3)), np.zeros((1, 3, 3)))
