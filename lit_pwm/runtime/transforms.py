"""Whether tensors are computed as they come, or by a transform that traces or wraps them."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd import forward_ad


def is_eager() -> bool:
    """Whether plain eager mode runs: no `torch.compile`, no transform of `torch.func`, no forward-mode derivative.

    Functions with gradients of their own, caches and sums in place are for eager mode alone: `vmap` and `jvp` know no
    rule for them, and a compiler writes better ones itself.
    """
    return not (
        torch.compiler.is_compiling()
        or torch._C._are_functorch_transforms_active()  # what `torch.autograd.Function` itself asks
        or forward_ad._current_level >= 0
    )


def added(first: Tensor, second: Tensor) -> Tensor:
    """first + second, in the memory of `first` where that may be; nothing else may use `first`."""
    return first.add_(second) if is_eager() else first + second
