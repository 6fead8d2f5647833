"""The straight paths of flow matching (arXiv 2209.03003, 2210.02747) and the times to train at."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

TauDistribution = Literal["uniform", "logit_normal", "early"]


def times(distribution: TauDistribution, normal: Tensor) -> Tensor:
    """Times in [0, 1) to train at, from standard normal numbers of any shape.

    Args:
        distribution: `uniform`; `logit_normal` (sigmoid of a standard normal, most often in the middle); `early`
            (density 2(1 − τ), most often near the source, where most is unknown).
        normal: standard normal numbers, as every draw of an update is handed in.
    """
    if distribution == "logit_normal":
        return normal.sigmoid().clamp(max=1 - torch.finfo(normal.dtype).eps / 2)
    u = torch.special.ndtr(normal).clamp(max=1 - torch.finfo(normal.dtype).eps / 2)
    return 1 - (1 - u).sqrt() if distribution == "early" else u


def straight_path(start: Tensor, end: Tensor, tau: Tensor) -> Tensor:
    """x_τ = (1 − τ) x(0) + τ x(1) for start, end [..., D] and tau [...]."""
    return torch.lerp(start, end, tau[..., None])
