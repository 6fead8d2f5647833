"""Velocity fields dx/dτ = v(τ, x, context), which count their evaluations, and the embedding of τ."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn


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


class TimeEmbedding(nn.Module):
    """φ(τ): sines and cosines of whole half-periods over [0, 1], followed by a linear map.

    Args:
        dim: number of features, even; 0 for a field that does not look at τ.
        out_dim: width of the result.
    """

    frequencies: Tensor

    def __init__(self, dim: int, out_dim: int) -> None:
        super().__init__()
        self.dim = dim
        self.linear = nn.Linear(dim, out_dim, bias=False)
        self.register_buffer("frequencies", math.pi * torch.arange(1, dim // 2 + 1), persistent=False)
        self._grid: dict[tuple[float, torch.dtype, torch.device], Tensor] = {}

    def forward(self, tau: float | Tensor) -> Tensor:
        """A number → [out_dim]; tensor [...] → [..., out_dim]."""
        weight = self.linear.weight
        if isinstance(tau, Tensor):
            return self.linear(self._features(tau.to(weight)))
        # A fixed-step solver asks for the same few times for ever.
        key = (tau, weight.dtype, weight.device)
        if key not in self._grid:
            self._grid[key] = self._features(torch.tensor(tau, dtype=weight.dtype, device=weight.device))
        return self.linear(self._grid[key])

    def _features(self, tau: Tensor) -> Tensor:
        angles = tau[..., None] * self.frequencies
        return torch.cat([angles.sin(), angles.cos()], dim=-1)
