"""What a sampled world model has to beat on stochastic dynamics: a Gaussian head, and residuals drawn from a bag.

Controls of the study in `stochastic_study.py`; no part of the package.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributions import LowRankMultivariateNormal

from lit_pwm.models import Dynamics, LatentTarget
from lit_pwm.models.layers import SIMNORM_GROUP, init_tdmpc2_, mlp, simnorm

_LOG_VARIANCE = (-8.0, 2.0)  # the least and the largest log-variance of a coordinate
_LOSS_SCALE = 0.05  # times the consistency coefficient of 20: the likelihood enters with a weight of one


def simplex_basis(group: int = SIMNORM_GROUP) -> Tensor:
    """Orthonormal vectors that sum to zero, [group, group - 1]: Helmert's.

    Logits that differ by a constant are one point of the simplex; their coordinates in this basis are free of it
    (isometric log-ratio coordinates, Egozcue et al. 2003).
    """
    basis = torch.zeros(group, group - 1)
    for k in range(1, group):
        basis[:k, k - 1] = 1 / math.sqrt(k * (k + 1))
        basis[k, k - 1] = -k / math.sqrt(k * (k + 1))
    return basis


class GaussianDynamics(Dynamics):
    """A Gaussian over the next latent's log-ratio coordinates, trained by likelihood of the encoder's, sampled always.

    The next latent is S(B y), y ~ N(μ, diag σ² + L Lᵀ) of 7 coordinates for each SimNorm group of 8, where μ, σ and the
    factor L of a few columns come from one network, B is `simplex_basis` and S the group softmax. Targets are the
    encoder's logits in these coordinates, without gradient. Sampling is by reparameterisation, with noise from torch's
    global generator, in training too.

    Trained on slices of one transition this is the one-step likelihood. On longer ones, each later step's start is a
    sample of the step before, which need not be the one that led to the target, so that it fits the marginals of the
    rollout instead.

    Args:
        latent_dim: width of the latent.
        action_dim: width of the padded action.
        task_dim: width of the task embedding.
        hidden_dim: width of the two hidden layers.
        rank: columns of L; 0 for a diagonal Gaussian.
    """

    basis: Tensor

    def __init__(self, latent_dim: int, action_dim: int, task_dim: int, hidden_dim: int = 256, rank: int = 0) -> None:
        super().__init__(latent_dim, action_dim, task_dim)
        self.hidden_dim, self.rank = hidden_dim, rank
        self.coordinates = latent_dim // SIMNORM_GROUP * (SIMNORM_GROUP - 1)
        head = nn.Linear(hidden_dim, (2 + rank) * self.coordinates)
        self.net = mlp(latent_dim + task_dim + action_dim, [hidden_dim] * 2, head)
        init_tdmpc2_(self)
        self.register_buffer("basis", simplex_basis(), persistent=False)

    @property
    def init_args(self) -> dict[str, Any]:
        """The options this was built with."""
        return {"hidden_dim": self.hidden_dim, "rank": self.rank}

    def _moments(self, z: Tensor, action: Tensor, embedding: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Mean [..., C], variance [..., C] and factor [..., C, rank]."""
        out = self.net(torch.cat([SIMNORM_GROUP * z - 1, embedding, action], dim=-1))
        mean, raw, factor = out.split([self.coordinates, self.coordinates, self.rank * self.coordinates], dim=-1)
        low, high = _LOG_VARIANCE
        return mean, (low + (high - low) * raw.sigmoid()).exp(), factor.unflatten(-1, (self.coordinates, self.rank))

    def _sample(self, mean: Tensor, variance: Tensor, factor: Tensor) -> Tensor:
        noise = variance.sqrt() * torch.randn_like(mean)
        shared = (factor @ torch.randn(*mean.shape[:-1], self.rank, 1, dtype=mean.dtype, device=mean.device)).squeeze(
            -1
        )
        y = (mean + noise + shared).unflatten(-1, (-1, SIMNORM_GROUP - 1))
        return simnorm((y @ self.basis.T).flatten(-2))

    def forward(self, z: Tensor, action: Tensor, embedding: Tensor) -> Tensor:
        """A sample of the next latent: z [..., Z], action [..., A], embedding [..., E] → [..., Z]."""
        return self._sample(*self._moments(z, action, embedding))

    def predict_with_loss(
        self, z: Tensor, action: Tensor, embedding: Tensor, target: LatentTarget
    ) -> tuple[Tensor, Tensor]:
        """A sample [B, Z] and the negative log-likelihood of the target for each coordinate, scaled [B]."""
        mean, variance, factor = self._moments(z, action, embedding)
        y = (target.logits.unflatten(-1, (-1, SIMNORM_GROUP)) @ self.basis).flatten(-2)
        if self.rank:
            density = LowRankMultivariateNormal(mean, factor, variance, validate_args=False).log_prob(y)
        else:
            density = -0.5 * ((y - mean).square() / variance + variance.log() + math.log(2 * math.pi)).sum(-1)
        return self._sample(mean, variance, factor), -_LOSS_SCALE * density / self.coordinates


def resampled_residuals(
    point: np.ndarray, predictions: np.ndarray, outcomes: np.ndarray, samples: int, seed: int
) -> np.ndarray:
    """A point prediction with the errors of others, drawn with replacement, added to it.

    Each sample takes the errors of one past prediction at all its steps, so that they hang together over time. What
    comes out are the distributions at each step of this rollout, not a model that could be rolled out.

    Args:
        point: the prediction, [T, N, D].
        predictions: predictions of the same model from other starts, [T, K, D].
        outcomes: what followed those starts, [T, K, D].
        samples: how many, M.
        seed: of the drawing.

    Returns:
        [M, T, N, D].
    """
    drawn = np.random.default_rng(seed).integers(predictions.shape[1], size=(samples, point.shape[1]))
    return point + (outcomes - predictions)[:, drawn].swapaxes(0, 1)
