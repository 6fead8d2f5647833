"""Latent dynamics: what follows a latent and an action. MLP here; other kinds derive from `Dynamics`."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import mse_loss

from lit_pwm.models.component import Component
from lit_pwm.models.layers import LatentWidth, NormedLinear, init_tdmpc2_, mlp, rescaled, simnorm
from lit_pwm.models.noise import OwnNoise
from lit_pwm.options import Count, CountOrZero


@dataclass(frozen=True)
class LatentTarget:
    """What the encoder says of the next observation, without gradient.

    Attributes:
        latent: the next latent, on the simplex, [B, Z].
        logits: the encoder's output before SimNorm, [B, Z].
        current: the latent of the observation before it, for kinds that train from the encoder's own starts, [B, Z].
        step: which step of the update's rollout this is, from 0.
        steps: `latent` and `logits` of all steps of the update, [H, B, Z] each, for what moves once per update at the
            first step; this step's alone if not given.
        known: which of all steps' targets are of observations that there are and that were recorded, bool [H, B]; all
            if not given.
        noise: this step's numbers of `Dynamics.noise_shape` for each state that is predicted from, [..., B, *shape];
            None where the dynamics declare none, or are to draw their own.
        loss_noise: likewise those of `Dynamics.loss_noise_shape`.
    """

    latent: Tensor
    logits: Tensor
    current: Tensor
    step: int = 0
    steps: tuple[Tensor, Tensor] | None = None
    known: Tensor | None = None
    noise: Tensor | None = None
    loss_noise: Tensor | None = None

    def pooled(self) -> LatentTarget:
        """The targets of all steps of the update as one of [H·B, Z]; `current` stays this step's."""
        latents, logits = self.steps or (self.latent, self.logits)
        return replace(self, latent=latents.flatten(0, -2), logits=logits.flatten(0, -2))


def consistency_error(predicted: Tensor, target: Tensor) -> Tensor:
    """Squared error averaged over latent entries (a sum would be 128 to 1376 times larger), [..., Z] → [...]."""
    return mse_loss(predicted, target.expand_as(predicted), reduction="none").mean(-1)


class Dynamics(Component):
    """Maps a latent, an action and a task embedding to the next latent.

    What is random about a step enters as an argument. Dynamics that draw declare how many standard normal numbers they
    need for each state, and `forward` then takes `noise` [..., *noise_shape] as a fourth argument, with z's leading
    axes; without it they draw from `own_noise`, never from torch's global generator. Dynamics that declare nothing are
    called with three arguments.

    Args:
        latent_dim: width Z of the latent, a multiple of the SimNorm group of 8.
        action_dim: width A of the padded action.
        task_dim: width of the task embedding.

    Attributes:
        samples: rollouts of each slice that the loss compares; training's leading axes are [samples, B] above one.
        noise_shape: shape of the noise of one prediction from one state; None where nothing is drawn.
        loss_noise_shape: shape of what the loss of one step draws besides, for each state; None where it draws nothing.
        averages_over_ranks: whether the loss reduces statistics over ranks.
    """

    dimensions: ClassVar[tuple[str, ...]] = ("latent_dim", "action_dim", "task_dim")
    samples: int = 1
    noise_shape: tuple[int, ...] | None = None
    loss_noise_shape: tuple[int, ...] | None = None
    averages_over_ranks: bool = False

    def __init__(self, latent_dim: LatentWidth, action_dim: Count, task_dim: CountOrZero) -> None:
        super().__init__()
        self.latent_dim, self.action_dim, self.task_dim = latent_dim, action_dim, task_dim
        self.own_noise = OwnNoise()

    @abstractmethod
    def forward(self, z: Tensor, action: Tensor, embedding: Tensor) -> Tensor:
        """z [..., Z], action [..., A], embedding [..., E] → next latent [..., Z], each group summing to one."""

    def noise_for(self, z: Tensor, noise: Tensor | None) -> Tensor | None:
        """The noise of predictions from z [..., Z], [..., *noise_shape]: what is handed in, or the dynamics' own."""
        if noise is None and self.noise_shape is not None:
            return self.own_noise.normal(*z.shape[:-1], *self.noise_shape, like=z)
        return noise

    def loss_noise_for(self, z: Tensor, noise: Tensor | None) -> Tensor | None:
        """Likewise what the loss draws, [..., *loss_noise_shape]."""
        if noise is None and self.loss_noise_shape is not None:
            return self.own_noise.normal(*z.shape[:-1], *self.loss_noise_shape, like=z)
        return noise

    def predict_with_loss(
        self, z: Tensor, action: Tensor, embedding: Tensor, target: LatentTarget
    ) -> tuple[Tensor, Tensor]:
        """One training step of a rollout: the next latent [B, Z] and this kind's consistency loss of it [B].

        Kinds with losses of their own (flow matching, supervised read-outs) override this; the rollout and the weights
        over time are the world model's. A kind with several `samples` is given [samples, B, ...] and one target [B, Z].
        Statistics of targets that a kind keeps move once per update, at `target.step` 0, by `target.pooled()`.

        The loss is a mean over samples, so that an update does not depend on how many ranks share its batch: what an
        override takes over the whole batch (a variance, a contrast between samples) it must reduce over the ranks
        itself, as `lit_pwm.models.running_stats.update_together` does.
        """
        predicted = self(z, action, embedding)
        return predicted, consistency_error(predicted, target.latent)


class MLPDynamics(Dynamics):
    """TD-MPC2's dynamics: normed hidden layers, then a normed linear layer with SimNorm; inputs [z, task, action].

    Args:
        latent_dim: width of the latent.
        action_dim: width of the padded action.
        task_dim: width of the task embedding.
        hidden_dim: width of the hidden layers.
        layers: number of hidden layers.
        rescale_inputs: feed G·z − 1 (G = 8, the group size) instead of z, which centres the simplex entries at zero, as
            flow and refinement dynamics do. TD-MPC2 and PWM feed z.
    """

    width_option = "hidden_dim"

    def __init__(
        self,
        latent_dim: LatentWidth,
        action_dim: Count,
        task_dim: CountOrZero,
        hidden_dim: Count = 512,
        layers: Count = 2,
        rescale_inputs: bool = True,
    ) -> None:
        super().__init__(latent_dim, action_dim, task_dim)
        self.hidden_dim, self.layers, self.rescale_inputs = hidden_dim, layers, rescale_inputs
        width = latent_dim + task_dim + action_dim
        self.net = mlp(width, [hidden_dim] * layers, NormedLinear(hidden_dim, latent_dim, torch.nn.Identity()))
        init_tdmpc2_(self)

    def forward(self, z: Tensor, action: Tensor, embedding: Tensor) -> Tensor:
        """z [..., Z], action [..., A], embedding [..., E] → next latent [..., Z]."""
        inputs = rescaled(z) if self.rescale_inputs else z
        return simnorm(self.net(torch.cat([inputs, embedding, action], dim=-1)))
