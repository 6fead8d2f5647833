"""The activation: torch's values, first and second derivatives."""

import pytest
import torch
from torch.nn import functional as F

from lit_pwm.models.layers import Mish, mish


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
