"""Scalars as distributions over bins in symlog space (DreamerV3, arXiv 2301.04104; TD-MPC2's variant)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lit_pwm.errors import LitPWMError
from lit_pwm.options import Range, checked

Bins = Annotated[int, Range(2)]
Symlog = Annotated[float, Range(-80, 80)]
"""Beyond this, `symexp` is infinite in float32."""


def symlog(x: Tensor) -> Tensor:
    """sign(x) · ln(1 + |x|)."""
    return x.sign() * x.abs().log1p()


def symexp(x: Tensor) -> Tensor:
    """The inverse of `symlog`: sign(x) · (e^|x| − 1)."""
    return x.sign() * x.abs().expm1()


class TwoHot(nn.Module):
    """Encodes a scalar as mass on the two bins beside it, and decodes logits to the expected bin.

    In single precision at least, whatever the module is cast to: between half-precision bins 0.9 would read as 0.824.

    Args:
        num_bins: number of evenly spaced bins.
        low: the lowest bin, in symlog units.
        high: the highest bin, in symlog units.
    """

    bins: Tensor

    @checked
    def __init__(self, num_bins: Bins = 101, low: Symlog = -10.0, high: Symlog = 10.0) -> None:
        super().__init__()
        if low >= high:
            raise LitPWMError(f"TwoHot has low {low:g} and high {high:g}; give a lowest bin below the highest.")
        self.num_bins, self.low, self.high = num_bins, low, high
        self.register_buffer("bins", self._make_bins(), persistent=False)

    def _make_bins(self) -> Tensor:
        return torch.linspace(self.low, self.high, self.num_bins, dtype=torch.float32, device="cpu")

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        super()._apply(fn, recurse)  # what `to`, `half`, `double` and `cuda` come down to
        if self.bins.element_size() < 4:
            self.bins = self._make_bins().to(self.bins.device)
        return self

    def encode(self, x: Tensor) -> Tensor:
        """Scalars in environment units [...] → probabilities [..., num_bins]."""
        x = x.to(torch.promote_types(x.dtype, torch.float32))
        step = (self.high - self.low) / (self.num_bins - 1)
        position = (symlog(x).clamp(self.low, self.high) - self.low) / step
        lower = position.floor()
        weight = (position - lower).unsqueeze(-1)
        # A value that is not a number keeps its weight, and so makes the loss not finite; its index only has to exist.
        index = lower.nan_to_num().long().unsqueeze(-1)
        target = torch.zeros(*x.shape, self.num_bins, dtype=x.dtype, device=x.device)
        target.scatter_(-1, index, 1 - weight)
        # At the highest bin the weight is zero and there is no bin above.
        return target.scatter_add_(-1, (index + 1).clamp(max=self.num_bins - 1), weight)

    def decode_symlog(self, logits: Tensor) -> Tensor:
        """Logits [..., num_bins] → expected value in symlog units [...], as PWM uses rewards."""
        # A sum, not a product, which autocast would do in bfloat16, whose steps are larger than rewards differ by.
        return (logits.softmax(-1, dtype=self.bins.dtype) * self.bins).sum(-1)

    def decode(self, logits: Tensor) -> Tensor:
        """Logits [..., num_bins] → value in environment units [...]."""
        return symexp(self.decode_symlog(logits))

    def cross_entropy(self, logits: Tensor, x: Tensor) -> Tensor:
        """−Σ twohot(symlog x) · log softmax(logits), of shape [...]; `x` is in environment units."""
        return -(self.encode(x) * F.log_softmax(logits, dim=-1, dtype=self.bins.dtype)).sum(-1)
