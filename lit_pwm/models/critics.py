"""An ensemble of state-value functions, evaluated as batched matrix products."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lit_pwm.models.component import Component
from lit_pwm.models.layers import Mish, TaskEmbedding
from lit_pwm.options import Count, CountOrZero


class BatchedLinear(nn.Module):
    """`num` independent linear layers applied by one batched product."""

    def __init__(self, num: int, in_features: int, out_features: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num, in_features, out_features))
        self.bias = nn.Parameter(torch.zeros(num, 1, out_features))
        for member in self.weight.data:
            # PWM's: orthogonal with gain √2 on every layer, the last one too. The member is stored transposed.
            nn.init.orthogonal_(member.T, gain=2**0.5)

    def forward(self, x: Tensor) -> Tensor:
        """[num, M, in_features] → [num, M, out_features]."""
        return torch.baddbmm(self.bias, x, self.weight)


class BatchedLayerNorm(nn.Module):
    """LayerNorm whose scale and shift belong to each member."""

    def __init__(self, num: int, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(num, 1, dim))
        self.bias = nn.Parameter(torch.zeros(num, 1, dim))

    def forward(self, x: Tensor) -> Tensor:
        """[num, M, dim] → [num, M, dim]."""
        return F.layer_norm(x, x.shape[-1:]) * self.weight + self.bias


class CriticEnsemble(Component):
    """`num_critics` value functions of the latent (PWM uses the minimum of three).

    Args:
        latent_dim: width Z of the latent.
        num_tasks: number of tasks that task ids count.
        num_critics: members of the ensemble.
        hidden_dims: widths of the hidden layers.
        task_dim: width of the critics' own task embedding; 0 for critics that do not look at the task.
    """

    dimensions: ClassVar[tuple[str, ...]] = ("latent_dim", "num_tasks")
    width_option = "hidden_dims"

    def __init__(
        self,
        latent_dim: Count,
        num_tasks: Count,
        num_critics: Count = 3,
        hidden_dims: Sequence[Count] = (400, 200),
        task_dim: CountOrZero = 0,
    ) -> None:
        super().__init__()
        self.latent_dim, self.num_tasks, self.num_critics = latent_dim, num_tasks, num_critics
        self.hidden_dims, self.task_dim = tuple(hidden_dims), task_dim
        self.task_embedding = TaskEmbedding(num_tasks, task_dim)
        dims = [latent_dim + task_dim, *self.hidden_dims]
        blocks: list[nn.Module] = []
        for a, b in pairwise(dims):
            blocks += [BatchedLinear(num_critics, a, b), Mish(), BatchedLayerNorm(num_critics, b)]
        self.net = nn.Sequential(*blocks, BatchedLinear(num_critics, dims[-1], 1))

    def forward(self, z: Tensor, task: Tensor) -> Tensor:
        """z [..., Z], task ids that broadcast to [...] → values of each member [num_critics, ...]."""
        embedding = self.task_embedding(task.expand(z.shape[:-1]))
        flat = torch.cat([z, embedding], dim=-1).flatten(0, -2)
        values = self.net(flat.expand(self.num_critics, *flat.shape))
        return values.view(self.num_critics, *z.shape[:-1])

    def minimum(self, z: Tensor, task: Tensor) -> Tensor:
        """The pessimistic value min_i V_i(z), of shape [...]."""
        return self(z, task).amin(0)
