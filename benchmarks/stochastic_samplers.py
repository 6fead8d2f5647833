"""Samplers without an ODE, trained as the sampled flow is: what a flow has to beat before its ODE can be said to help.

Controls of the study in `stochastic_study.py`; no part of the package. The third of them, one evaluation of noise,
latent and action (engression, arXiv 2307.00835), is `FlowDynamics` itself at one Euler step.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn

from lit_pwm.models import Dynamics, GroupScore, LatentTarget, NoiseSource
from lit_pwm.models.component import made
from lit_pwm.models.conditioned_field import ConditionedField
from lit_pwm.models.energy_score import energy_score
from lit_pwm.models.latent_spaces import SPACES
from lit_pwm.models.layers import NormedLinear, init_tdmpc2_, mlp, rescaled, simnorm
from lit_pwm.models.running_stats import RunningVariance
from lit_pwm.models.sources import NoisePower
from lit_pwm.options import Count, NonNegative


class EnergySampler(Dynamics):
    """A network of latent, action and noise, whose rolled-out samples are trained by their energy score.

    The loss is that of `FlowDynamics` with an `EnergyLoss`: the score of whole latents and of SimNorm groups, of the
    last read-out and, with `readout_weight`, of the mean over those before it, in units of squared error.

    Args:
        latent_dim: width of the latent.
        action_dim: width of the padded action.
        task_dim: width of the task embedding.
        hidden_dim: width of the two hidden layers.
        readout_weight: weight of the earlier read-outs' scores, where there are several.
        groups: how groups are scored.
        noise_dim: dimensions of the noise.
        noise_power: p; the noise is sign(ε) |ε|^p of a normal ε, scaled to unit variance.
    """

    samples = 2
    averages_over_ranks = True

    def __init__(
        self,
        latent_dim: int,
        action_dim: int,
        task_dim: int,
        hidden_dim: Count = 256,
        readout_weight: NonNegative = 0.5,
        groups: Callable[[], GroupScore] | None = GroupScore,
        noise_dim: Count = 4,
        noise_power: NoisePower = 3.0,
    ) -> None:
        super().__init__(latent_dim, action_dim, task_dim)
        self.hidden_dim, self.readout_weight = hidden_dim, readout_weight
        self.noise_power, self.noise_dim, self.noise_shape = noise_power, noise_dim, (noise_dim,)
        self.groups = None if groups is None else made(groups, GroupScore)
        self.latent_variance = RunningVariance()

    @abstractmethod
    def read_outs(self, z: Tensor, action: Tensor, embedding: Tensor, noise: Tensor | None) -> list[Tensor]:
        """z [..., Z], action [..., A], embedding [..., E] → samples of the next latent [..., Z], the last the best."""

    def forward(self, z: Tensor, action: Tensor, embedding: Tensor, noise: Tensor | None = None) -> Tensor:
        """z [..., Z], action [..., A], embedding [..., E] → a sample of the next latent [..., Z]."""
        return self.read_outs(z, action, embedding, noise)[-1]

    def predict_with_loss(
        self, z: Tensor, action: Tensor, embedding: Tensor, target: LatentTarget
    ) -> tuple[Tensor, Tensor]:
        """Samples of the next latent [2, B, Z] and their energy score, the same for both [2, B]."""
        if self.training and target.step == 0:
            self.latent_variance.update(target.pooled().latent)
        *earlier, last = self.read_outs(z, action, embedding, target.noise)
        deviation = self.latent_variance.value.sqrt()
        score = energy_score(last, target.latent, deviation, self.groups)
        for latent in earlier if self.readout_weight else []:
            weight = self.readout_weight / len(earlier)
            score = score.add(energy_score(latent, target.latent, deviation, self.groups), alpha=weight)
        return last, score.expand(last.shape[:-1])


class NoisyMLP(EnergySampler):
    """`MLPDynamics` with noise beside its other inputs."""

    def __init__(self, latent_dim: int, action_dim: int, task_dim: int, **options: Any) -> None:
        super().__init__(latent_dim, action_dim, task_dim, **options)
        noise_dim = self.noise_dim
        self.source = NoiseSource(noise_dim, SPACES["logit"], power=self.noise_power)
        width = latent_dim + task_dim + action_dim + noise_dim
        self.net = mlp(width, [self.hidden_dim] * 2, NormedLinear(self.hidden_dim, latent_dim, nn.Identity()))
        init_tdmpc2_(self)

    def read_outs(self, z: Tensor, action: Tensor, embedding: Tensor, noise: Tensor | None = None) -> list[Tensor]:
        """As `EnergySampler`; there is one."""
        shaped = self.source.shaped(cast("Tensor", self.noise_for(z, noise)))
        return [simnorm(self.net(torch.cat([rescaled(z), embedding, action, shaped], dim=-1)))]


class NoisyRefinement(EnergySampler):
    """`RefinementDynamics` of two corrections whose first estimate is noise instead of zero.

    x_0 = noise as a flow's, x_{k+1} = x_k + c(f[S(x_k), z, task, a]), read-outs S(x_1) and S(x_2).
    """

    def __init__(self, latent_dim: int, action_dim: int, task_dim: int, **options: Any) -> None:
        super().__init__(latent_dim, action_dim, task_dim, **options)
        noise_dim = self.noise_dim
        self.source = NoiseSource(latent_dim, SPACES["logit"], power=self.noise_power, dim=noise_dim)
        self.field = ConditionedField(latent_dim, latent_dim + task_dim + action_dim, self.hidden_dim, 2)

    def read_outs(self, z: Tensor, action: Tensor, embedding: Tensor, noise: Tensor | None = None) -> list[Tensor]:
        """As `EnergySampler`; there are two."""
        condition, latents = self.field.condition(rescaled(z), embedding, action), []
        x = self.source(z, cast("Tensor", self.noise_for(z, noise)))
        for k in range(2):
            x = x + self.field(k / 2, rescaled(simnorm(x)), condition)
            latents.append(simnorm(x))
        return latents
