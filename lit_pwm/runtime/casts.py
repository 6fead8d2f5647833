"""Casts of weights under autocast: made once within a loss, and never carried across an optimizer step."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def cached_casts(device: torch.device, frozen: Iterable[nn.Module] = ()) -> Generator[None, None, None]:
    """A block in which autocast, if it is on, casts each weight once and not at each use.

    Lightning switches autocast's own cache off, because it would outlive an optimizer step; here it is cleared before
    and after the block, which holds one loss. Gradients of all uses then meet in the cast's precision. What is computed
    without gradient within the block belongs in `uncached_casts`.

    Args:
        device: where the block computes.
        frozen: networks that get no gradient. Autocast caches nothing but what requires one, so that their weights do
            within the block; the backward of its loss must name its inputs (`OptimizedPart.compute_gradients` does), or
            they would be given theirs.
    """
    kind = device.type
    if not torch.is_autocast_enabled(kind):
        yield
        return
    weights = [p for network in frozen for p in network.parameters() if p.is_floating_point() and not p.requires_grad]
    torch.clear_autocast_cache()
    try:
        for weight in weights:
            weight.requires_grad_(True)
        with torch.autocast(kind, torch.get_autocast_dtype(kind), cache_enabled=True):
            yield
    finally:
        for weight in weights:
            weight.requires_grad_(False)
        torch.clear_autocast_cache()


@contextmanager
def uncached_casts(device: torch.device) -> Generator[None, None, None]:
    """A block without gradient within a loss: a cast made in it is not found again.

    In torch before 2.10 a cast that was cached without gradient served later uses with gradient, which then had none.
    """
    kind = device.type
    with torch.no_grad():
        if not torch.is_autocast_enabled(kind):
            yield
            return
        with torch.autocast(kind, torch.get_autocast_dtype(kind), cache_enabled=False):
            yield
