"""Policies in latent space. `MLPActor` is PWM's squashed Gaussian; other kinds derive from `Actor`."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor, nn

from lit_pwm.models.component import Component
from lit_pwm.models.layers import Constrained, Mish, TaskEmbedding
from lit_pwm.models.noise import OwnNoise
from lit_pwm.options import Count, CountOrZero, Length, LogDeviation

Widths = Annotated[Sequence[Count], Length(1)]
"""Of hidden layers, at least one."""
LOG_STD_INIT = -1.0
LOG_STD_FLOOR = -1.427
"""PWM's initial and lowest log standard deviation (σ ≥ 0.24); every kind of actor starts and stops there."""


def _without_mask(module: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    state.pop(f"{prefix}action_mask", None)


class Actor(Component):
    """Maps a latent to an action; samples with given noise, so that gradients flow through the sample.

    Padded action dimensions are zero: `set_action_mask` tells which. The mask is made from the world model's tasks
    wherever an actor is built, and never saved or loaded: checkpoints that hold one are read without it.

    Args:
        latent_dim: width Z of the latent.
        action_dim: width A of the padded action.
        num_tasks: number of tasks that task ids count.
    """

    dimensions: ClassVar[tuple[str, ...]] = ("latent_dim", "action_dim", "num_tasks")
    action_mask: Tensor

    def __init__(self, latent_dim: Count, action_dim: Count, num_tasks: Count) -> None:
        super().__init__()
        self.latent_dim, self.action_dim, self.num_tasks = latent_dim, action_dim, num_tasks
        self.register_buffer("action_mask", torch.ones(num_tasks, action_dim), persistent=False)
        self.register_load_state_dict_pre_hook(_without_mask)
        self.own_noise = OwnNoise()

    def set_action_mask(self, mask: Tensor) -> None:
        """Let actions of padded dimensions be zero: mask [N, A] of ones and zeros."""
        self.action_mask.copy_(mask)

    @abstractmethod
    def forward(self, z: Tensor, task: Tensor, deterministic: bool = False, noise: Tensor | None = None) -> Tensor:
        """Choose actions.

        Args:
            z: latents [B, Z].
            task: task ids [B].
            deterministic: act without noise.
            noise: standard normal noise [B, A] to use; without it, `own_noise` is drawn from.

        Returns:
            Actions [B, A] in (-1, 1), zero where masked.
        """


def policy_trunk(in_dim: int, hidden_dims: Sequence[int]) -> nn.Sequential:
    """PWM's hidden blocks, in PWM's order: Linear → Mish → LayerNorm; none for no widths."""
    blocks: list[nn.Module] = []
    for a, b in pairwise([in_dim, *hidden_dims]):
        blocks += [nn.Linear(a, b), Mish(), nn.LayerNorm(b)]
    return nn.Sequential(*blocks)


class LogStd(Constrained):
    """A state-independent log standard deviation with a floor."""

    def __init__(self, dim: int, init: float = LOG_STD_INIT, floor: float = LOG_STD_FLOOR) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.full((dim,), float(init)))
        self.floor = floor

    def forward(self) -> Tensor:
        """The vector [A]."""
        return self.value

    @torch.no_grad()
    def constrain_(self) -> None:
        """Raise entries below the floor to it."""
        self.value.clamp_(min=self.floor)


class MLPActor(Actor):
    """a = tanh(μ(z) + σ ε) with a state-independent σ (PWM, arXiv 2407.02466).

    Args:
        latent_dim: width of the latent.
        action_dim: width of the padded action.
        num_tasks: number of tasks that task ids count.
        hidden_dims: widths of the hidden layers.
        task_dim: width of the actor's own task embedding; 0 for a policy that does not look at the task.
        log_std_init: initial log σ.
        log_std_floor: lowest log σ.
    """

    width_option = "hidden_dims"

    def __init__(
        self,
        latent_dim: Count,
        action_dim: Count,
        num_tasks: Count,
        hidden_dims: Widths = (400, 200, 100),
        task_dim: CountOrZero = 0,
        log_std_init: LogDeviation = LOG_STD_INIT,
        log_std_floor: LogDeviation = LOG_STD_FLOOR,
    ) -> None:
        super().__init__(latent_dim, action_dim, num_tasks)
        self.hidden_dims, self.task_dim = tuple(hidden_dims), task_dim
        self.task_embedding = TaskEmbedding(num_tasks, task_dim)
        self.trunk = policy_trunk(latent_dim + task_dim, self.hidden_dims)
        self.mean = nn.Linear(self.hidden_dims[-1], action_dim)
        self.log_std = LogStd(action_dim, log_std_init, log_std_floor)

    def forward(self, z: Tensor, task: Tensor, deterministic: bool = False, noise: Tensor | None = None) -> Tensor:
        """z [B, Z], task [B] → actions [B, A] in (-1, 1)."""
        pre_tanh = self.mean(self.trunk(torch.cat([z, self.task_embedding(task)], dim=-1)))
        if not deterministic:
            noise = self.own_noise.normal(*pre_tanh.shape, like=pre_tanh) if noise is None else noise
            pre_tanh = pre_tanh + self.log_std().exp() * noise
        return self.action_mask[task] * pre_tanh.tanh()
