"""Whether an episode goes on: the head by which imagination knows of ends."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lit_pwm.batch import Batch
from lit_pwm.models.heads import Head
from lit_pwm.models.layers import LatentWidth, init_tdmpc2_, mlp
from lit_pwm.options import Count, CountOrZero

CONTINUATION = "continuation"
"""Its name among a world model's heads, and so that of its parameters' group and of its loss."""


class ContinuationHead(Head):
    """c(z, a, task) = P(the episode goes on after this transition), trained by binary cross-entropy.

    One MLP's logit for all tasks; inputs [z, task, action] as the reward's. The label of a transition is 1 − terminated
    and all weigh the same: an episode that its time limit truncates, or that is not finished, goes on. A task in whose
    training episodes none was terminated has c = 1 exactly, and no loss. DreamerV3's continue predictor
    (arXiv 2301.04104) with an action, since the end may follow from it.

    Args:
        latent_dim: width of the latent.
        action_dim: width of the padded action.
        task_dim: width of the task embedding.
        hidden_dim: width of the hidden layers.
        layers: number of hidden layers.

    Attributes:
        terminates: which tasks have ends, bool [N], saved with the weights; none at first (`know_ends_`).
    """

    width_option = "hidden_dim"
    terminates: Tensor

    def __init__(
        self,
        latent_dim: LatentWidth,
        action_dim: Count,
        task_dim: CountOrZero,
        hidden_dim: Count = 512,
        layers: Count = 2,
    ) -> None:
        super().__init__(latent_dim, action_dim, task_dim)
        self.hidden_dim, self.layers = hidden_dim, layers
        self.net = mlp(latent_dim + task_dim + action_dim, [hidden_dim] * layers, nn.Linear(hidden_dim, 1))

    @classmethod
    def like(cls, reward: Head) -> Self:
        """A head for the same dimensions, whose network has the reward head's hidden layers, if it says how many."""
        sizes = {name: getattr(reward, name) for name in ("hidden_dim", "layers") if hasattr(reward, name)}
        return cls(reward.latent_dim, reward.action_dim, reward.task_dim, **sizes)

    def number_tasks_(self, count: int) -> None:
        """As `Head`: makes room for which of them have ends."""
        self.register_buffer("terminates", torch.zeros(count, dtype=torch.bool))

    def know_ends_(self, ends: Mapping[int, bool]) -> None:
        """From now on these tasks, by their ids, have ends or none; others stay as they are."""
        for task, terminates in ends.items():
            self.terminates[task] = terminates

    def initialise_(self) -> None:
        """TD-MPC2's, with a last layer of zeros, as the reward's: an untrained head says 1/2."""
        init_tdmpc2_(self)
        nn.init.zeros_(cast("nn.Linear", self.net[-1]).weight)

    def forward(self, z: Tensor, action: Tensor, embedding: Tensor) -> Tensor:
        """z [..., Z], action [..., A], embedding [..., E] → logits [...], in single precision at least.

        In half precision 1 − c could not be told from 0 where ends are rare.
        """
        logits = self.net(torch.cat([z, embedding.expand(*z.shape[:-1], -1), action], dim=-1)).squeeze(-1)
        return logits.to(torch.promote_types(logits.dtype, torch.float32))

    def decode(self, logits: Tensor, task: Tensor) -> Tensor:
        """What `forward` gives [...] for task ids that broadcast to it → c in (0, 1] [...]."""
        return torch.where(self.terminates[task], logits.sigmoid(), 1.0)

    def loss(self, latents: Tensor, actions: Tensor, embedding: Tensor, batch: Batch) -> Tensor:
        """−log c where the episode goes on, −log(1 − c) where it ends, as `Head`; 0 for tasks without ends.

        Data without terminations has no `terminated` in its batches: everything goes on.
        """
        logits = self(latents, actions, embedding)
        goes_on = torch.ones_like(logits)
        if (terminated := batch.get("terminated")) is not None:
            goes_on = goes_on - self.per_state(terminated, latents).to(logits.dtype)
        entropy = F.binary_cross_entropy_with_logits(logits, goes_on, reduction="none")
        return torch.where(self.terminates[batch["task"]], entropy, 0.0)
