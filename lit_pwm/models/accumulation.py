"""In which precision sums over many values are kept."""

from __future__ import annotations

import torch

_WITHOUT_DOUBLES = ("mps",)


def accumulation_dtype(device: torch.device | str) -> torch.dtype:
    """Double precision, or single on devices that have none (Apple's)."""
    return torch.float32 if torch.device(device).type in _WITHOUT_DOUBLES else torch.float64
