"""What a world model predicts of a state beside the next one: heads, each with its own loss. The reward is the first.

Shapes: H steps, B slices, [...] what lies between them (the samples of a kind of dynamics that draws several), latents
Z, actions A, task embeddings E.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from lit_pwm.batch import Batch
from lit_pwm.models.component import Component
from lit_pwm.models.layers import LatentWidth, init_tdmpc2_, mlp
from lit_pwm.models.two_hot import Bins, TwoHot, symlog
from lit_pwm.options import Count, CountOrZero


class Head(Component):
    """Predicts something of a latent, an action and a task; brings the loss that trains it.

    A world model calls its heads by name; the name is also that of its parameters' group and of its loss. To add one,
    name it in `heads` of the world model's options:

        model: {init_args: {world_model: {heads: {size: {class_path: my_package.SizeHead}}}}}

    Args:
        latent_dim: width Z of the latent.
        action_dim: width A of the padded action.
        task_dim: width E of the task embedding.

    Attributes:
        coefficient: weight of its loss, where the objective names no other (`WorldModelObjective.coefficients`).
        lr_scale: its learning rate as a fraction of the optimizer's.
    """

    dimensions: ClassVar[tuple[str, ...]] = ("latent_dim", "action_dim", "task_dim")
    coefficient: ClassVar[float] = 1.0
    lr_scale: ClassVar[float] = 1.0

    def __init__(self, latent_dim: LatentWidth, action_dim: Count, task_dim: CountOrZero) -> None:
        super().__init__()
        self.latent_dim, self.action_dim, self.task_dim = latent_dim, action_dim, task_dim

    @abstractmethod
    def forward(self, z: Tensor, action: Tensor, embedding: Tensor) -> Tensor:
        """z [..., Z], action [..., A], embedding [..., E] → what it predicts [..., any]."""

    @abstractmethod
    def loss(self, latents: Tensor, actions: Tensor, embedding: Tensor, batch: Batch) -> Tensor:
        """Its loss at each state of a rollout.

        Args:
            latents: states of the rollout that have an action, [H, ..., B, Z].
            actions: [H, ..., B, A].
            embedding: [..., B, E].
            batch: the slices; `per_state` lays out what it holds like the rollout.

        Returns:
            [H, ..., B]; steps that are not `valid` in the batch are left out by the objective.
        """

    def number_tasks_(self, count: int) -> None:
        """Told once how many tasks the world model has, whose ids are those of `task` in batches. Nothing by default.

        What is kept of each task is a buffer or parameter of which one axis counts tasks: it grows with them
        (`lit_pwm.models.growing`).
        """

    def initialise_(self) -> None:
        """Draw the first weights; called once, when all parts of the world model are there. Nothing by default."""

    @staticmethod
    def per_state(values: Tensor, latents: Tensor) -> Tensor:
        """What a batch holds of each transition [H, B], for each state of a rollout with latents [H, ..., B, Z]."""
        between = latents.shape[1:-2]
        return values.view(len(values), *(1 for _ in between), -1).expand(latents.shape[:-1])


class RewardHead(Head):
    """Predicts the reward of a transition. Imagination reads it by `decode` and `decode_symlog`."""

    coefficient = 0.1

    @abstractmethod
    def decode(self, outputs: Tensor) -> Tensor:
        """What `forward` gives [..., any] → rewards in environment units [...]."""

    def decode_symlog(self, outputs: Tensor) -> Tensor:
        """What `forward` gives [..., any] → rewards in symlog units [...], as PWM uses them."""
        return symlog(self.decode(outputs))


class TwoHotReward(RewardHead):
    """TD-MPC2's: an MLP's logits over bins in symlog space, trained by cross-entropy; inputs [z, task, action].

    Args:
        latent_dim: width of the latent.
        action_dim: width of the padded action.
        task_dim: width of the task embedding.
        hidden_dim: width of the hidden layers.
        layers: number of hidden layers.
        num_bins: bins, over symlog in [-10, 10].
    """

    width_option = "hidden_dim"

    def __init__(
        self,
        latent_dim: LatentWidth,
        action_dim: Count,
        task_dim: CountOrZero,
        hidden_dim: Count = 512,
        layers: Count = 2,
        num_bins: Bins = 101,
    ) -> None:
        super().__init__(latent_dim, action_dim, task_dim)
        self.hidden_dim, self.layers, self.num_bins = hidden_dim, layers, num_bins
        self.net = mlp(latent_dim + task_dim + action_dim, [hidden_dim] * layers, nn.Linear(hidden_dim, num_bins))
        self.two_hot = TwoHot(num_bins)

    @property
    def init_args(self) -> dict[str, Any]:
        """The options this was built with."""
        return {"hidden_dim": self.hidden_dim, "layers": self.layers, "num_bins": self.num_bins}

    def initialise_(self) -> None:
        """TD-MPC2's, with a last layer of zeros, so that an untrained head decodes to exactly zero."""
        init_tdmpc2_(self)
        nn.init.zeros_(cast("nn.Linear", self.net[-1]).weight)

    def forward(self, z: Tensor, action: Tensor, embedding: Tensor) -> Tensor:
        """z [..., Z], action [..., A], embedding [..., E] → logits [..., bins]."""
        return self.net(torch.cat([z, embedding.expand(*z.shape[:-1], -1), action], dim=-1))

    def decode(self, outputs: Tensor) -> Tensor:
        """As `RewardHead`, of logits."""
        return self.two_hot.decode(outputs)

    def decode_symlog(self, outputs: Tensor) -> Tensor:
        """As `RewardHead`, of logits."""
        return self.two_hot.decode_symlog(outputs)

    def loss(self, latents: Tensor, actions: Tensor, embedding: Tensor, batch: Batch) -> Tensor:
        """−Σ twohot(symlog r_t) · log softmax(logits), as `Head`."""
        logits = self(latents, actions, embedding)
        return self.two_hot.cross_entropy(logits, self.per_state(batch["reward"], latents))
