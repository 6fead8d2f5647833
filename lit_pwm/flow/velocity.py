"""Velocity fields dx/dτ = v(τ, x, context), and the embedding of τ."""

from __future__ import annotations

import functools
import math
from abc import ABC, abstractmethod
from typing import Annotated, Any

import torch
from torch import Tensor, nn

from lit_pwm.options import Range
from lit_pwm.runtime.transforms import is_eager

TimeWidth = Annotated[int, Range(0, multiple=2)]
"""Features of τ: as many sines as cosines."""


class VelocityField(nn.Module, ABC):
    """A network that is evaluated several times per step.

    Calls are what a number of function evaluations (NFE) counts: `lit_pwm.measures.compute.counting` does, by hooks, so
    that the module keeps no count that a compiler would have to follow.
    """

    def forward(self, tau: float | Tensor, x: Tensor | None, context: Any) -> Tensor:
        """Evaluate the field.

        Args:
            tau: time in [0, 1], one for all or one for each sample [...].
            x: state [..., D]; None where it is known to be zero, which saves a matrix product.
            context: what the field is conditioned on, in the field's own form.
        """
        return self.velocity(tau, x, context)

    @abstractmethod
    def velocity(self, tau: float | Tensor, x: Tensor | None, context: Any) -> Tensor:
        """The field's value, of shape [..., D]."""


class TimeFeatures(nn.Module):
    """Sines and cosines of whole half-periods over [0, 1].

    Args:
        dim: number of features, even.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, tau: float | Tensor, like: Tensor) -> Tensor:
        """A number → [dim]; tensor [...] → [..., dim]; of the dtype and on the device of `like`."""
        if isinstance(tau, Tensor):
            return _features(tau.to(like), self.dim)
        if not is_eager():  # what a transform makes must not outlive it
            return _features(torch.as_tensor(tau, dtype=like.dtype, device=like.device), self.dim)
        return _features_of_number(tau, self.dim, like.dtype, like.device)


@functools.lru_cache(maxsize=1024)
def _features_of_number(tau: float, dim: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Kept, because a fixed-step solver asks for the same few times for ever."""
    with torch.inference_mode(False):  # or a validation before the first update would break its backward
        return _features(torch.tensor(tau, dtype=dtype, device=device), dim)


def _features(tau: Tensor, dim: int) -> Tensor:
    frequencies = math.pi * torch.arange(1, dim // 2 + 1, dtype=tau.dtype, device=tau.device)
    angles = tau[..., None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


class TimeEmbedding(nn.Module):
    """φ(τ), `TimeFeatures` followed by a linear map.

    Args:
        dim: number of features, even.
        out_dim: width of the result.
    """

    def __init__(self, dim: int, out_dim: int) -> None:
        super().__init__()
        self.features = TimeFeatures(dim)
        self.linear = nn.Linear(dim, out_dim, bias=False)

    def forward(self, tau: float | Tensor) -> Tensor:
        """A number → [out_dim]; tensor [...] → [..., out_dim]."""
        return self.linear(self.features(tau, self.linear.weight))
