"""Our Mish is torch's, with exact first and second derivatives, also far from zero and under torch.func."""

import torch
from torch.nn import functional as F

from lit_pwm.models.mish import Mish, _Mish


def test_values_and_gradients_are_torchs():
    x = torch.cat([torch.linspace(-60, 60, 2001), torch.tensor([-1e4, 1e4])]).double().requires_grad_()
    ours, theirs = Mish()(x), F.mish(x)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    grads = [torch.autograd.grad(y.sum(), x)[0] for y in (ours, theirs)]
    torch.testing.assert_close(*grads, rtol=1e-12, atol=1e-12)


def test_derivatives_are_exact():
    x = torch.randn(20, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(_Mish.apply, (x,))
    assert torch.autograd.gradgradcheck(_Mish.apply, (x,))


def test_works_under_functional_transforms():
    x = torch.randn(4, 3, dtype=torch.float64)
    jacobians = torch.func.vmap(torch.func.jacrev(Mish()))(x)
    expected = torch.func.vmap(torch.func.jacrev(F.mish))(x)
    torch.testing.assert_close(jacobians, expected)
