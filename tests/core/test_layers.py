"""Mish and SimNorm against torch's own, with their derivatives; the task embedding of width zero."""

import pytest
import torch
from torch.nn import functional as F

from lit_pwm.models.layers import Mish, TaskEmbedding, mish, simnorm


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_values_and_gradients_are_torchs(dtype):
    x = torch.cat([torch.linspace(-40, 90, 1301), torch.randn(1000)]).to(dtype)
    ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    tolerance = {torch.float32: 1e-6, torch.float64: 1e-12, torch.bfloat16: 0}[dtype]
    torch.testing.assert_close(Mish()(ours), F.mish(theirs), atol=tolerance, rtol=tolerance)
    weights = torch.randn(x.shape).to(dtype)
    for values, function in ((ours, mish), (theirs, F.mish)):
        function(values).backward(weights)
    torch.testing.assert_close(ours.grad, theirs.grad, atol=2 * tolerance, rtol=2 * tolerance)


def test_first_and_second_derivatives():
    x = torch.linspace(-6, 8, 29, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(mish, (x,))
    assert torch.autograd.gradgradcheck(mish, (x,))


def test_simnorm_is_a_softmax_of_groups_with_its_gradient():
    x, g = torch.randn(3, 5, 24, dtype=torch.float64, requires_grad=True), torch.randn(3, 5, 24, dtype=torch.float64)
    expected = x.reshape(3, 5, 3, 8).softmax(-1).reshape(3, 5, 24)
    torch.testing.assert_close(simnorm(x), expected)
    ours, theirs = (torch.autograd.grad(y, x, g)[0] for y in (simnorm(x), expected))
    torch.testing.assert_close(ours, theirs)
    assert torch.autograd.gradgradcheck(simnorm, (x[:1, :1, :8].detach().requires_grad_(),))


def test_simnorm_of_large_logits_and_of_nothing():
    large = simnorm(torch.tensor([[1e4] * 8 + [-1e4] * 7 + [3e38]]))
    torch.testing.assert_close(large, torch.tensor([[0.125] * 8 + [0.0] * 7 + [1.0]]))
    assert simnorm(torch.zeros(0, 16)).shape == (0, 16)


@pytest.mark.parametrize("largest", [79.9, 80.1, 120.0])
def test_simnorm_with_and_without_subtracting_the_maximum(largest):
    logits = torch.tensor([[-largest] * 8 + [largest] * 8 + [largest, -largest] * 4]) + torch.randn(5, 24)
    logits[0, 8], logits[1, 0] = largest, -largest  # the entries that decide which of both
    logits.clamp_(-largest, largest)
    expected = logits.unflatten(-1, (3, 8)).softmax(-1).flatten(-2)
    torch.testing.assert_close(simnorm(logits), expected, atol=1e-6, rtol=2e-5)
    logits[2, 3] = torch.nan
    assert torch.equal(simnorm(logits).isnan().any(0), torch.arange(24) < 8)


def test_simnorm_under_autocast_is_in_single_precision():
    x = torch.randn(64, 64)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(simnorm(x), x.unflatten(-1, (-1, 8)).softmax(-1).flatten(-2))


def test_a_task_embedding_of_width_zero_has_the_shape_of_any_and_a_gradient():
    embedding = TaskEmbedding(3, 0)
    rows = embedding(torch.tensor([[0, 2], [1, 1]]))
    assert rows.shape == (2, 2, 0)
    rows.sum().backward()
    assert embedding.weight.grad.shape == (3, 0)
