"""Samplers without an ODE, trained as the sampled flow is: what a flow has to beat before its ODE can be said to help.

Controls of the study in `stochastic_study.py`; no part of the package. The third of them, one evaluation of noise,
latent and action (engression, arXiv 2307.00835), is `FlowDynamics` itself at one Euler step.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

from lit_pwm.models import Dynamics, LatentTarget
from lit_pwm.models.conditioned_field import ConditionedField
from lit_pwm.models.energy_score import EnergyScore, ProperExponent
from lit_pwm.models.latent_spaces import SPACES
from lit_pwm.models.layers import NormedLinear, init_tdmpc2_, mlp, rescaled, simnorm
from lit_pwm.models.running_stats import RunningVariance
from lit_pwm.models.sources import NoisePower, NoiseSource
from lit_pwm.options import Count, NonNegative


class EnergySampler(Dynamics):
    """A network of latent, action and noise, whose rolled-out samples are trained by their energy score.

    The loss is that of `FlowDynamics` with `energy_weight` 1: the score of whole latents and of SimNorm groups, of the
    last read-out and, with `readout_weight`, of the mean over those before it, in units of squared error.

    Args:
        latent_dim: width of the latent.
        action_dim: width of the padded action.
        task_dim: width of the task embedding.
        hidden_dim: width of the two hidden layers.
        readout_weight: weight of the earlier read-outs' scores, where there are several.
        energy_group_weight: weight of the groups' scores.
        energy_group_exponent: β of these scores.
        noise_dim: dimensions of the noise.
        noise_power: p; the noise is sign(ε) |ε|^p of a normal ε, scaled to unit variance.
    """

    samples = 2

    def __init__(
        self,
        latent_dim: int,
        action_dim: int,
        task_dim: int,
        hidden_dim: Count = 256,
        readout_weight: NonNegative = 0.5,
        energy_group_weight: NonNegative = 1.0,
        energy_group_exponent: ProperExponent = 0.5,
        noise_dim: Count = 4,
        noise_power: NoisePower = 3.0,
    ) -> None:
        super().__init__(latent_dim, action_dim, task_dim)
        self.hidden_dim, self.readout_weight = hidden_dim, readout_weight
        self.noise_dim, self.noise_power = noise_dim, noise_power
        self.energy = EnergyScore(energy_group_weight, energy_group_exponent)
        self.latent_variance = RunningVariance()

    @property
    def init_args(self) -> dict[str, Any]:
        """The options this was built with."""
        names = "hidden_dim", "readout_weight", "noise_dim", "noise_power"
        groups = {f"energy_{name}": getattr(self.energy, name) for name in ("group_weight", "group_exponent")}
        return {name: getattr(self, name) for name in names} | groups

    @abstractmethod
    def read_outs(self, z: Tensor, action: Tensor, embedding: Tensor) -> list[Tensor]:
        """z [..., Z], action [..., A], embedding [..., E] → samples of the next latent [..., Z], the last the best."""

    def forward(self, z: Tensor, action: Tensor, embedding: Tensor) -> Tensor:
        """z [..., Z], action [..., A], embedding [..., E] → a sample of the next latent [..., Z]."""
        return self.read_outs(z, action, embedding)[-1]

    def predict_with_loss(
        self, z: Tensor, action: Tensor, embedding: Tensor, target: LatentTarget
    ) -> tuple[Tensor, Tensor]:
        """Samples of the next latent [2, B, Z] and their energy score, the same for both [2, B]."""
        if self.training and target.step == 0:
            self.latent_variance.update(target.pooled().latent)
        *earlier, last = self.read_outs(z, action, embedding)
        deviation = self.latent_variance.value.sqrt()
        score = self.energy(last, target.latent, deviation)
        for latent in earlier if self.readout_weight else []:
            weight = self.readout_weight / len(earlier)
            score = score.add(self.energy(latent, target.latent, deviation), alpha=weight)
        return last, score.expand(last.shape[:-1])


class NoisyMLP(EnergySampler):
    """`MLPDynamics` with noise beside its other inputs."""

    def __init__(self, latent_dim: int, action_dim: int, task_dim: int, **options: Any) -> None:
        super().__init__(latent_dim, action_dim, task_dim, **options)
        self.source = NoiseSource(SPACES["logit"], self.noise_dim, 1.0, self.noise_power, 0)
        width = latent_dim + task_dim + action_dim + self.noise_dim
        self.net = mlp(width, [self.hidden_dim] * 2, NormedLinear(self.hidden_dim, latent_dim, nn.Identity()))
        init_tdmpc2_(self)

    def read_outs(self, z: Tensor, action: Tensor, embedding: Tensor) -> list[Tensor]:
        """As `EnergySampler`; there is one."""
        noise = self.source.noise(z)
        return [simnorm(self.net(torch.cat([rescaled(z), embedding, action, noise], dim=-1)))]


class NoisyRefinement(EnergySampler):
    """`RefinementDynamics` of two corrections whose first estimate is noise instead of zero.

    x_0 = noise as a flow's, x_{k+1} = x_k + c(f[S(x_k), z, task, a]), read-outs S(x_1) and S(x_2).
    """

    def __init__(self, latent_dim: int, action_dim: int, task_dim: int, **options: Any) -> None:
        super().__init__(latent_dim, action_dim, task_dim, **options)
        self.source = NoiseSource(SPACES["logit"], latent_dim, 1.0, self.noise_power, self.noise_dim)
        self.field = ConditionedField(latent_dim, latent_dim + task_dim + action_dim, self.hidden_dim, 2)

    def read_outs(self, z: Tensor, action: Tensor, embedding: Tensor) -> list[Tensor]:
        """As `EnergySampler`; there are two."""
        condition, x, latents = self.field.condition(rescaled(z), embedding, action), self.source(z), []
        for k in range(2):
            x = x + self.field(k / 2, rescaled(simnorm(x)), condition)
            latents.append(simnorm(x))
        return latents
