"""Learning-rate factors at their ends."""

from __future__ import annotations

import pytest
import torch

from lit_pwm.errors import LitPWMError
from lit_pwm.optim import apply_settings, linear_decay, warmup_cosine


def test_linear_decay():
    factor = linear_decay(100, first=5e-4, last=1e-5)
    assert factor(0) == 1
    assert 5e-4 * factor(50) == pytest.approx((5e-4 + 1e-5) / 2)
    assert 5e-4 * factor(100) == pytest.approx(1e-5)
    assert factor(150) == factor(100)
    assert [factor(i) for i in range(101)] == sorted((factor(i) for i in range(101)), reverse=True)


def test_warmup_then_cosine():
    factor = warmup_cosine(100, warmup_steps=10, final_fraction=0.1)
    assert factor(0) == pytest.approx(0.1)
    assert factor(9) == pytest.approx(1)
    assert factor(10) == pytest.approx(1)
    assert factor(55) == pytest.approx(0.55)
    assert factor(100) == pytest.approx(0.1)
    assert factor(1000) == pytest.approx(0.1)


def test_a_final_fraction_of_one_is_constant_after_warmup():
    factor = warmup_cosine(100, warmup_steps=0, final_fraction=1.0)
    assert {factor(i) for i in (0, 1, 50, 99, 100, 200)} == {1.0}


def test_degenerate_lengths_do_not_divide_by_zero():
    assert linear_decay(0, 1e-3, 1e-4)(0) == pytest.approx(1)
    assert warmup_cosine(5, warmup_steps=5, final_fraction=0.5)(5) == pytest.approx(1)
    assert warmup_cosine(5, warmup_steps=50, final_fraction=0.5)(4) == pytest.approx(0.1)


def test_a_schedule_that_a_callback_has_put_in_place_is_refused():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    other = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)
    with pytest.raises(LitPWMError, match=r"ExponentialLR.*trainer\.callbacks"):
        apply_settings([[{"initial_lr": 0.1}]], [optimizer], [other])
