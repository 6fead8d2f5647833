"""Running moments equal those of all values at once."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lit_pwm.models import RunningStats


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 50), st.floats(-1e3, 1e3), st.floats(0.01, 1e2)), min_size=1, max_size=8))
def test_against_numpy_over_all_history(batches):
    rng = np.random.default_rng(0)
    stats, history = RunningStats(), []
    for size, mean, std in batches:
        values = rng.normal(mean, std, size)
        history.append(values)
        stats.update(RunningStats.moments(torch.from_numpy(values)))
    everything = np.concatenate(history)
    # PWM's start is a hundred-thousandth part of a value at 0 with variance 1.
    count = len(everything) + 1e-4
    mean = everything.sum() / count
    variance = (((everything - mean) ** 2).sum() + 1e-4 * (1 + mean**2)) / count
    np.testing.assert_allclose(stats.count.item(), count)
    np.testing.assert_allclose(stats.mean.item(), mean, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(stats.var.item(), variance, rtol=1e-7, atol=1e-9)


def test_rows_of_several_ranks_equal_one_batch_of_all():
    values = torch.randn(4, 16, generator=torch.Generator().manual_seed(0)) * torch.arange(1.0, 5)[:, None] + 3
    several, one, order = RunningStats(), RunningStats(), RunningStats()
    for _ in range(3):
        several.update(torch.stack([RunningStats.moments(row) for row in values]))
        one.update(RunningStats.moments(values.flatten()))
        order.update(torch.stack([RunningStats.moments(row) for row in values.flip(0)]))
    for other in (one, order):
        torch.testing.assert_close(several.mean, other.mean)
        torch.testing.assert_close(several.var, other.var)
        torch.testing.assert_close(several.count, other.count)


def test_moments_take_no_gradient_and_state_is_saved():
    x = torch.randn(8, requires_grad=True)
    assert not RunningStats.moments(x * 2).requires_grad
    stats = RunningStats()
    stats.update(RunningStats.moments(x))
    again = RunningStats()
    again.load_state_dict(stats.state_dict())
    assert torch.equal(again.var, stats.var)
    assert not list(stats.parameters())


def test_float32_values_far_from_zero_keep_their_variance():
    values = 1e4 + torch.randn(1000, generator=torch.Generator().manual_seed(0))
    stats = RunningStats()
    for chunk in values.split(100):
        stats.update(RunningStats.moments(chunk))
    torch.testing.assert_close(stats.mean.item(), values.double().mean().item(), rtol=1e-6, atol=0)
    spread = values.double().var(unbiased=False).item()
    start = 1e-4 * 1e8 / 1000  # what PWM's start at zero leaves
    torch.testing.assert_close(stats.var.item(), spread + start, rtol=1e-3, atol=0)
