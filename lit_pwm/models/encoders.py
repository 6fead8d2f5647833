"""Encoders: what a latent is made from. TD-MPC2's MLP here; other kinds derive from `Encoder`."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from lit_pwm.models.component import Component
from lit_pwm.models.layers import LatentWidth, NormedLinear, init_tdmpc2_, mlp
from lit_pwm.options import Count, CountOrZero


class Encoder(Component):
    """Maps a standardised observation and a task embedding to the latent's logits, of which SimNorm makes the latent.

    Args:
        obs_dim: width O of the padded observation.
        task_dim: width E of the task embedding.
        latent_dim: width Z of the latent.
    """

    dimensions: ClassVar[tuple[str, ...]] = ("obs_dim", "task_dim", "latent_dim")

    def __init__(self, obs_dim: Count, task_dim: CountOrZero, latent_dim: LatentWidth) -> None:
        super().__init__()
        self.obs_dim, self.task_dim, self.latent_dim = obs_dim, task_dim, latent_dim

    @abstractmethod
    def forward(self, obs: Tensor, embedding: Tensor) -> Tensor:
        """Obs [..., O] of mean 0 and deviation 1, embedding [..., E] → logits [..., Z]."""

    def initialise_(self) -> None:
        """Draw the first weights; called once, when all parts of the world model are there. Nothing by default.

        Apart from the constructor, so that a seed gives the same weights whatever other parts are made between.
        """


class MLPEncoder(Encoder):
    """TD-MPC2's encoder: normed hidden layers, then a normed linear layer; inputs [obs, task].

    Args:
        obs_dim: width of the padded observation.
        task_dim: width of the task embedding.
        latent_dim: width of the latent.
        hidden_dim: width of the hidden layers.
        layers: number of hidden layers.
    """

    width_option = "hidden_dim"

    def __init__(
        self,
        obs_dim: Count,
        task_dim: CountOrZero,
        latent_dim: LatentWidth,
        hidden_dim: Count = 256,
        layers: Count = 1,
    ) -> None:
        super().__init__(obs_dim, task_dim, latent_dim)
        self.hidden_dim, self.layers = hidden_dim, layers
        self.net = mlp(obs_dim + task_dim, [hidden_dim] * layers, NormedLinear(hidden_dim, latent_dim, nn.Identity()))

    @property
    def init_args(self) -> dict[str, Any]:
        """The options this was built with."""
        return {"hidden_dim": self.hidden_dim, "layers": self.layers}

    def initialise_(self) -> None:
        """TD-MPC2's."""
        init_tdmpc2_(self)

    def forward(self, obs: Tensor, embedding: Tensor) -> Tensor:
        """As `Encoder`."""
        return self.net(torch.cat([obs, embedding], dim=-1))
