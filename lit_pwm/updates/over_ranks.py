"""Averages over the ranks of a run."""

from __future__ import annotations

import torch
from torch import Tensor


def averaged_over_ranks(values: Tensor) -> Tensor:
    """The mean over ranks of a tensor without gradient, in one reduction; the tensor itself where a process is alone.

    All ranks call it together.
    """
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return values
    together = values.clone()
    torch.distributed.all_reduce(together)
    return together / torch.distributed.get_world_size()
