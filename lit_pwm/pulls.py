"""Pulls of a world model that is trained further towards what it was: terms of the loss, plain torch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from lit_pwm.batch import Batch, counted, without_padding
from lit_pwm.models.world_model import WorldModel, given_noise
from lit_pwm.options import NonNegative, OptionObject

NOISE = "pull"
"""Name of what a pull draws."""


class Pull(OptionObject, ABC):
    """A base of terms that keep a world model near a frozen copy of what it was when the run began."""

    def noise_shapes(self, world_model: WorldModel, horizon: int) -> dict[str, tuple[int, ...]]:
        """What an update draws for it, as `WorldModelObjective.noise_shapes`; nothing by default."""
        return {}

    @abstractmethod
    def term(
        self,
        world_model: WorldModel,
        pretrained: WorldModel,
        pairs: Sequence[tuple[Tensor, Tensor]],
        batch: Batch,
        noise: Mapping[str, Tensor],
    ) -> Tensor:
        """The term of the loss with its weight, a scalar.

        Args:
            world_model: the model in training.
            pretrained: what it was, without gradient.
            pairs: each parameter that is trained, and what it was.
            batch: slices of the second stream.
            noise: the draws of `noise_shapes`, each [B, *shape].
        """


@dataclass(frozen=True)
class L2Pull(Pull):
    """½ α Σ (θ − θ₀)² over all trained parameters (L2-SP, arXiv 1802.01483).

    Attributes:
        coefficient: α.
    """

    coefficient: NonNegative = 1e-2

    def term(
        self,
        world_model: WorldModel,
        pretrained: WorldModel,
        pairs: Sequence[tuple[Tensor, Tensor]],
        batch: Batch,
        noise: Mapping[str, Tensor],
    ) -> Tensor:
        """As `Pull.term`."""
        squares = [(parameter - before.detach()).square().sum() for parameter, before in pairs]
        return self.coefficient / 2 * torch.stack(squares).sum()


@dataclass(frozen=True)
class DistillationPull(Pull):
    """Keeps what the model says on the second stream near what it said (distillation, arXiv 1503.02531).

    α [ c_z (mean_D (enc(o) − enc₀(o))² + mean_D (next(z₀, a) − next₀(z₀, a))²) + c_r KL(p₀ ‖ p) ], averaged over the
    steps and slices of the batch (0 beyond the end of an episode), with z₀ = enc₀(o), and p and p₀ the distributions
    over reward bins at (z₀, a) of the model and of what it was. Dynamics that sample are given the same noise.

    Attributes:
        coefficient: α.
        latent_coef: c_z.
        reward_coef: c_r.
    """

    coefficient: NonNegative = 1.0
    latent_coef: NonNegative = 20.0
    reward_coef: NonNegative = 0.1

    def noise_shapes(self, world_model: WorldModel, horizon: int) -> dict[str, tuple[int, ...]]:
        """The noise of one prediction for each step."""
        shape = world_model.dynamics.noise_shape
        return {} if shape is None else {NOISE: (horizon, *shape)}

    def term(
        self,
        world_model: WorldModel,
        pretrained: WorldModel,
        pairs: Sequence[tuple[Tensor, Tensor]],
        batch: Batch,
        noise: Mapping[str, Tensor],
    ) -> Tensor:
        """As `Pull.term`."""
        batch = without_padding(batch)
        valid = batch.get("valid")
        obs, action, task = batch["obs"][:-1], batch["action"], batch["task"].expand(batch["action"].shape[:2])
        drawn = given_noise(noise[NOISE].movedim(1, 0) if NOISE in noise else None)
        with torch.no_grad():
            z = pretrained.encode(obs, task)
            expected = pretrained.next(z, action, task, *drawn)
            bins = pretrained.reward_logits(z, action, task).float().log_softmax(-1)
        moved = world_model.encode(obs, task) - z, world_model.next(z, action, task, *drawn) - expected
        if valid is not None:
            moved = tuple(x.where(valid[..., None], 0) for x in moved)
        latents = moved[0].square().mean() + moved[1].square().mean()
        predicted = world_model.reward_logits(z, action, task).float().log_softmax(-1)
        rewards = counted(F.kl_div(predicted, bins, log_target=True, reduction="none").sum(-1), valid).mean()
        return self.coefficient * (self.latent_coef * latents + self.reward_coef * rewards)
