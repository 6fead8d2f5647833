"""The layers every network of lit_pwm is made of: TD-MPC2's normed linear, SimNorm and the bounded task embedding."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lit_pwm.models import cpu_functions
from lit_pwm.options import Range

SIMNORM_GROUP = 8
LatentWidth = Annotated[int, Range(SIMNORM_GROUP, multiple=SIMNORM_GROUP)]
"""SimNorm splits the latent into whole groups."""
_MINUS_ONE = torch.tensor(-1.0)


class Constrained(nn.Module):
    """A module whose parameters live in a set; the training step moves them back into it after each optimizer step.

    The move is not part of `forward`, so that evaluating a network never changes a weight.
    """

    def constrain_(self) -> None:
        """Project the parameters onto the set, in place."""
        raise NotImplementedError


def constrain_(module: nn.Module) -> None:
    """Project every `Constrained` part of `module`; called after each optimizer step."""
    for part in module.modules():
        if isinstance(part, Constrained):
            part.constrain_()


def mish(x: Tensor) -> Tensor:
    """x · tanh(log(1 + eˣ)) (arXiv 1908.08681), of any shape."""
    return cpu_functions.mish(x) if cpu_functions.is_for_cpu(x) else F.mish(x)


class Mish(nn.Module):
    """`mish` as a layer."""

    def forward(self, x: Tensor) -> Tensor:
        """Any shape."""
        return mish(x)


class NormedLinear(nn.Linear):
    """Linear → LayerNorm → activation (TD-MPC2, arXiv 2310.16828, §3.2).

    Parameter names `weight, bias, ln.weight, ln.bias` are those of TD-MPC2's checkpoints.
    """

    def __init__(self, in_features: int, out_features: int, activation: nn.Module | None = None) -> None:
        super().__init__(in_features, out_features)
        self.ln = nn.LayerNorm(out_features)
        self.activation = Mish() if activation is None else activation

    def forward(self, input: Tensor) -> Tensor:
        """[..., in_features] → [..., out_features]."""
        return self.activation(self.ln(super().forward(input)))


def simnorm(logits: Tensor, group: int = SIMNORM_GROUP) -> Tensor:
    """Softmax within consecutive groups of the last axis (SimNorm, arXiv 2204.00616): each group sums to one."""
    if cpu_functions.is_for_cpu(logits):
        return cpu_functions.simnorm(logits, group)
    # Autocast runs a softmax in full precision on a GPU and not on a CPU, where groups would sum to one only to 1e-2.
    lowered = logits.element_size() < 4 and torch.is_autocast_enabled(logits.device.type)
    dtype = torch.float32 if lowered else None
    return logits.unflatten(-1, (-1, group)).softmax(-1, dtype=dtype).flatten(-2)


def rescaled(z: Tensor, group: int = SIMNORM_GROUP) -> Tensor:
    """G·z − 1 with G the group's size: simplex entries centred at zero, of order one."""
    return torch.add(_MINUS_ONE, z, alpha=group)


def mlp(in_dim: int, hidden_dims: Sequence[int], out: nn.Module) -> nn.Sequential:
    """Normed hidden layers followed by `out`, which takes the last hidden width."""
    dims = [in_dim, *hidden_dims]
    return nn.Sequential(*(NormedLinear(a, b) for a, b in pairwise(dims)), out)


def init_tdmpc2_(module: nn.Module) -> None:
    """TD-MPC2's initialisation: truncated normal of std 0.02 for weights, zero for biases."""
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.trunc_normal_(part.weight, std=0.02)
            if part.bias is not None:
                nn.init.zeros_(part.bias)


class TaskEmbedding(Constrained):
    """A learned vector of norm at most one for each task.

    `torch.nn.Embedding(max_norm=1)` rescales long rows in place during lookup. Here the lookup rescales a copy and
    passes the gradient through unscaled, which yields the reference's numbers while a forward pass changes nothing; the
    stored rows are brought back by `constrain_`.
    """

    held_rows: Tensor | None
    held: Tensor | None

    def __init__(self, num_tasks: int, dim: int, max_norm: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_tasks, dim).uniform_(-0.02, 0.02))
        self.max_norm = max_norm
        self.hold(())

    @torch.no_grad()
    def hold(self, rows: Sequence[int]) -> None:
        """From now on `constrain_` puts these rows back to what they are now; none of them lets all rows move."""
        at = torch.tensor(list(rows), dtype=torch.int64, device=self.weight.device) if rows else None
        self.register_buffer("held_rows", at, persistent=False)
        self.register_buffer("held", None if at is None else self.weight[at].clone(), persistent=False)

    def _scale(self, rows: Tensor) -> Tensor:
        norm = rows.norm(dim=-1, keepdim=True)
        # The 1e-7 is torch's own, so that outputs agree with nn.Embedding's to the last bit.
        return torch.where(norm > self.max_norm, self.max_norm / (norm + 1e-7), torch.ones_like(norm))

    def forward(self, task: Tensor) -> Tensor:
        """Task ids [...] int64 → embeddings [..., dim]."""
        if not self.weight.numel():  # an actor or critic that does not look at the task
            return self.weight[0].expand(*task.shape, -1)  # CUDA's embedding of width zero breaks in its backward pass
        rows = F.embedding(task, self.weight)
        return rows + (rows * self._scale(rows) - rows).detach()

    @torch.no_grad()
    def constrain_(self) -> None:
        """Rescale rows longer than `max_norm`, as the reference's lookup does, and put held rows back."""
        self.weight.mul_(self._scale(self.weight))
        if self.held_rows is not None and self.held is not None:
            self.weight.index_copy_(0, self.held_rows, self.held)
