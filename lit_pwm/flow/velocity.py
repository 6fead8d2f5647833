"""Velocity fields dx/dτ = v(τ, x, context), which count their evaluations, and the embedding of τ."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Annotated, Any

import torch
from torch import Tensor, nn

from lit_pwm.options import Range

TimeWidth = Annotated[int, Range(0, multiple=2)]
"""Features of τ: as many sines as cosines."""


class VelocityField(nn.Module, ABC):
    """A network that is evaluated several times per step; `nfe` counts the evaluations and only grows.

    Whoever wants the number of function evaluations (NFE) of some work takes the difference before and after it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.nfe = 0

    def forward(self, tau: float | Tensor, x: Tensor | None, context: Any) -> Tensor:
        """Evaluate the field and count it.

        Args:
            tau: time in [0, 1], one for all or one for each sample [...].
            x: state [..., D]; None where it is known to be zero, which saves a matrix product.
            context: what the field is conditioned on, in the field's own form.
        """
        self.nfe += 1
        return self.velocity(tau, x, context)

    @abstractmethod
    def velocity(self, tau: float | Tensor, x: Tensor | None, context: Any) -> Tensor:
        """The field's value, of shape [..., D]."""


class TimeFeatures(nn.Module):
    """Sines and cosines of whole half-periods over [0, 1].

    Args:
        dim: number of features, even.
    """

    frequencies: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.register_buffer("frequencies", math.pi * torch.arange(1, dim // 2 + 1), persistent=False)
        self._grid: dict[tuple[float, torch.dtype, torch.device], Tensor] = {}

    def forward(self, tau: float | Tensor, like: Tensor) -> Tensor:
        """A number → [dim]; tensor [...] → [..., dim]; of the dtype and on the device of `like`."""
        if isinstance(tau, Tensor):
            return self._features(tau.to(like))
        # A fixed-step solver asks for the same few times for ever.
        key = (tau, like.dtype, like.device)
        if key not in self._grid:
            with torch.inference_mode(False):  # or a validation before the first update would break its backward
                self._grid[key] = self._features(torch.tensor(tau, dtype=like.dtype, device=like.device))
        return self._grid[key]

    def _features(self, tau: Tensor) -> Tensor:
        angles = tau[..., None] * self.frequencies
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
