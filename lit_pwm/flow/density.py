"""The change of density under a map, exact for the map itself, whatever its number of steps."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def of_autograd(x: Tensor) -> Tensor:
    """The tensor, or a copy of one that was made in inference mode, which no backward pass may have seen."""
    return x.clone() if x.is_inference() else x


def log_abs_det_jacobian(
    function: Callable[[Tensor], Tensor], x: Tensor, mask: Tensor | None = None, create_graph: bool = False
) -> tuple[Tensor, Tensor]:
    """A map's value and log |det ∂f/∂x| for each sample of a batch.

    The whole D × D Jacobian is computed, by D backward passes: right for the few dimensions of an action. (The trace
    integral of continuous flows is exact only for infinitely many steps.)

    Args:
        function: maps [..., D] to [..., D], each row on its own. What else it reads must be no inference tensors.
        x: where [..., D].
        mask: ones for the dimensions that count, zeros for others [..., D]; those must not influence the rest.
        create_graph: keep the result differentiable.

    Returns:
        The value [..., D] and the log-determinant [...] over the dimensions that count.
    """
    with torch.inference_mode(False), torch.enable_grad():
        x, mask = of_autograd(x), None if mask is None else of_autograd(mask)
        x = x if x.requires_grad else x.detach().requires_grad_()
        value = function(x)
        rows = [
            torch.autograd.grad(value[..., i].sum(), x, create_graph=create_graph, retain_graph=True)[0]
            for i in range(value.shape[-1])
        ]
        jacobian = torch.stack(rows, dim=-2)
        if mask is not None:
            both = mask[..., :, None] * mask[..., None, :]
            jacobian = jacobian * both + torch.diag_embed(1 - mask)
        log_det = torch.linalg.slogdet(jacobian).logabsdet
    return (value, log_det) if create_graph else (value.detach(), log_det.detach())
