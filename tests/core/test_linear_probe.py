"""The one linear probe, against a ridge regression in numpy, and what makes it fair: no scale or shift enters it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lit_pwm.measures.linear_probe import best_probe, fit_probe, probe_of_sums, with_one
from lit_pwm.models.layers import simnorm


@pytest.fixture
def pairs():
    generator = torch.Generator().manual_seed(0)
    z = simnorm(3 * torch.randn(3000, 16, generator=generator))
    obs = z @ torch.randn(16, 5, generator=generator) + torch.randn(5, generator=generator)
    return z, obs, torch.randn(3000, 5, generator=generator)


@pytest.mark.parametrize("ridge", [1e-3, 0.3])
def test_it_is_the_ridge_regression_with_a_free_offset(pairs, ridge):
    z, obs, noise = pairs
    probe = fit_probe(z, obs + noise, ridge)
    x, y = z.double().numpy(), (obs + noise).double().numpy()
    # As least squares: the penalty is so many further rows, and centring leaves the offset free.
    penalty = np.sqrt(ridge * x.var(0).mean() * len(x)) * np.eye(16)
    rows = np.concatenate([x - x.mean(0), penalty]), np.concatenate([y - y.mean(0), np.zeros((16, 5))])
    weights = np.linalg.lstsq(*rows)[0]
    expected = np.concatenate([weights, (y.mean(0) - x.mean(0) @ weights)[None]])
    np.testing.assert_allclose(probe.matrix.numpy(), expected, rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(probe(z).numpy(), x @ expected[:-1] + expected[-1], rtol=1e-4, atol=1e-5)
    assert probe(z).dtype == z.dtype
    assert probe.error(z, obs) == pytest.approx(np.square(x @ expected[:-1] + expected[-1] - obs.numpy()).mean())


def test_it_reads_what_is_linear_in_latents(pairs):
    z, obs, _ = pairs
    probe = best_probe((z[:2000], obs[:2000]), (z[2000:], obs[2000:]))
    torch.testing.assert_close(probe(z), obs, atol=2e-3, rtol=0)
    assert probe(z.reshape(50, 60, 16)).shape == (50, 60, 5)


def test_neither_scale_nor_shift_of_an_encoder_matters(pairs):
    z, obs, noise = pairs
    expected = fit_probe(z, obs + noise, 0.1)(z.double())
    torch.testing.assert_close(
        fit_probe(100 * z + 7, obs + noise, 0.1)(100 * z.double() + 7), expected, rtol=1e-3, atol=1e-3
    )
    torch.testing.assert_close(fit_probe(z, obs + noise + 50, 0.1)(z.double()), expected + 50)


def test_sums_of_parts_add_up(pairs):
    z, obs, _ = pairs
    sums = [
        (with_one(a).T @ with_one(a), with_one(a).T @ b.double())
        for a, b in zip(z.split(700), obs.split(700), strict=True)
    ]
    inner, cross = (torch.stack(parts).sum(0) for parts in zip(*sums, strict=True))
    torch.testing.assert_close(probe_of_sums(inner, cross).matrix, fit_probe(z, obs).matrix)


def test_the_penalty_is_chosen_by_what_was_held_out():
    """With more entries than pairs and only noise, the larger penalty does best on other pairs, not on its own."""
    generator = torch.Generator().manual_seed(1)
    z, obs = torch.randn(60, 40, generator=generator), torch.randn(60, 3, generator=generator)
    fitted, held_out, ridges = (z[:30], obs[:30]), (z[30:], obs[30:]), (1e-4, 10.0)
    assert best_probe(fitted, held_out, ridges).error(*held_out) == fit_probe(*fitted, 10.0).error(*held_out)
    assert best_probe(fitted, fitted, ridges).error(*fitted) == fit_probe(*fitted, 1e-4).error(*fitted)
