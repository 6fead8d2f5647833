"""The straight paths of flow matching (arXiv 2209.03003, 2210.02747) and the times to train at."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

TauDistribution = Literal["uniform", "logit_normal", "early"]


def sample_tau(distribution: TauDistribution, shape: torch.Size | tuple[int, ...], like: Tensor) -> Tensor:
    """Times in [0, 1) to train at, from the global generator.

    Args:
        distribution: `uniform`; `logit_normal` (sigmoid of a standard normal, most often in the middle); `early`
            (density 2(1 − τ), most often near the source, where most is unknown).
        shape: shape of the result.
        like: gives dtype and device.
    """
    if distribution == "logit_normal":
        return torch.randn(shape, dtype=like.dtype, device=like.device).sigmoid()
    u = torch.rand(shape, dtype=like.dtype, device=like.device)
    return 1 - (1 - u).sqrt() if distribution == "early" else u


def straight_path(start: Tensor, end: Tensor, tau: Tensor) -> Tensor:
    """x_τ = (1 − τ) x(0) + τ x(1) for start, end [..., D] and tau [...]."""
    return torch.lerp(start, end, tau[..., None])
