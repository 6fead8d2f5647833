"""Mish and SimNorm as functions with gradients of their own, for CPUs, where torch's take several times as long."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from lit_pwm.runtime.transforms import is_eager


def is_for_cpu(x: Tensor) -> bool:
    """Whether these functions are the ones to use.

    Elsewhere, in half precision, under autocast, and while tensors are transformed or compiled, torch's are.
    """
    return (
        is_eager()
        and x.device.type == "cpu"
        and x.dtype in (torch.float32, torch.float64)
        and not torch.is_autocast_enabled("cpu")
    )


_ONE, _TWO = ({d: torch.tensor(value, dtype=d) for d in (torch.float32, torch.float64)} for value in (1.0, 2.0))
"""As tensors, which cost half as much as Python numbers in an operation on few entries."""


class _Mish(torch.autograd.Function):
    """x · tanh(log(1 + eˣ)) with one exponential forward and none backward; torch's takes twice as long on a CPU.

    With s = sigmoid(x) the tangent is u / (2 − u), u = 1 − (1 − s)², exact where s is tiny and where it is one.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        sigmoid = x.sigmoid()
        u = torch.lerp(sigmoid, _ONE[x.dtype], sigmoid)
        tanh = u.div_(_TWO[x.dtype] - u)
        value = x * tanh
        if ctx.needs_input_grad[0]:  # its slope now, while all is in the cache: tanh + sigmoid (x − x tanh²)
            ctx.save_for_backward(x, tanh.addcmul_(sigmoid, torch.addcmul(x, value, tanh, value=-1)))
        return value

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        x, slope = ctx.saved_tensors
        if torch.is_grad_enabled():  # a second derivative is wanted, which the saved slope does not carry
            sigmoid, tanh = x.sigmoid(), F.softplus(x).tanh()
            slope = tanh + x * sigmoid * (1 - tanh * tanh)
        return gradients[0] * slope


@functools.cache
def _group_sums(group: int, dtype: torch.dtype) -> Tensor:
    with torch.inference_mode(False), torch.device("cpu"):
        return torch.ones(group, group, dtype=dtype)


_SAFE = 80.0
"""The exponential of a logit within ± this, and a sum of such, neither overflows nor vanishes."""


def _is_safe(logits: Tensor) -> bool:
    if not logits.numel():
        return False
    low, high = torch.aminmax(logits)
    return low.item() > -_SAFE and high.item() < _SAFE


class _SimNorm(torch.autograd.Function):
    """Softmax of each row of a few entries, along which torch's is not vectorised.

    A product with ones gives each entry the sum of its row, in half the time of a sum; it counts as FLOPs. The maximum
    of each row takes a third of the time, so it is subtracted only where it must.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, group: int) -> Tensor:
        rows = logits.reshape(-1, group)
        ctx.sums = _group_sums(group, logits.dtype)
        exponentials = rows.exp() if _is_safe(rows) else (rows - rows.amax(-1, keepdim=True)).exp_()
        value = exponentials.div_(exponentials @ ctx.sums).view(logits.shape)
        ctx.save_for_backward(value)
        return value

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (value,) = ctx.saved_tensors
        rows = value.reshape(-1, len(ctx.sums))
        weighted = gradients[0].reshape(rows.shape) * rows
        return weighted.addcmul_(rows, weighted @ ctx.sums, value=-1).view(value.shape), None


mish: Callable[[Tensor], Tensor] = _Mish.apply
"""x · tanh(log(1 + eˣ)), of any shape."""

simnorm: Callable[[Tensor, int], Tensor] = _SimNorm.apply
"""(logits [..., Z], size of a group) → softmax within each group, [..., Z]."""
