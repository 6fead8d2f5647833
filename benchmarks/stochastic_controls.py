"""What a sampled world model has to beat on stochastic dynamics: a Gaussian head, and residuals drawn from a bag.

Controls of the study in `stochastic_study.py`; no part of the package.
"""

from __future__ import annotations

import math
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

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

    The next latent is S(B y), y ~ N(μ, diag σ²) of 7 coordinates for each SimNorm group of 8, where μ and σ come from
    one network, B is `simplex_basis` and S the group softmax. Targets are the encoder's logits in these coordinates,
    without gradient. Sampling is by reparameterisation, in training too.

    Trained on slices of one transition this is the one-step likelihood. On longer ones, each later step's start is a
    sample of the step before, which need not be the one that led to the target, so that it fits the marginals of the
    rollout instead.

    A covariance of low rank added to the diagonal (of rank 1 and of rank 4) made it worse, energy scores at one step of
    .39 and 1.3: latents of a task of five observations lie near a surface of few dimensions among the 112 coordinates,
    and likelihood spent the factor on spanning that surface.

    Args:
        latent_dim: width of the latent.
        action_dim: width of the padded action.
        task_dim: width of the task embedding.
        hidden_dim: width of the two hidden layers.
    """

    basis: Tensor

    def __init__(self, latent_dim: int, action_dim: int, task_dim: int, hidden_dim: int = 256) -> None:
        super().__init__(latent_dim, action_dim, task_dim)
        coordinates = latent_dim // SIMNORM_GROUP * (SIMNORM_GROUP - 1)
        head = nn.Linear(hidden_dim, 2 * coordinates)
        self.net = mlp(latent_dim + task_dim + action_dim, [hidden_dim] * 2, head)
        init_tdmpc2_(self)
        self.register_buffer("basis", simplex_basis(), persistent=False)
        self.noise_shape = (coordinates,)

    def moments(self, z: Tensor, action: Tensor, embedding: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance of the coordinates, [..., C] each."""
        mean, raw = self.net(torch.cat([SIMNORM_GROUP * z - 1, embedding, action], dim=-1)).chunk(2, dim=-1)
        low, high = _LOG_VARIANCE
        return mean, (low + (high - low) * raw.sigmoid()).exp()

    def _sample(self, mean: Tensor, variance: Tensor, noise: Tensor | None) -> Tensor:
        drawn = cast("Tensor", self.noise_for(mean, noise))
        y = (mean + variance.sqrt() * drawn).unflatten(-1, (-1, SIMNORM_GROUP - 1))
        return simnorm((y @ self.basis.T).flatten(-2))

    def forward(self, z: Tensor, action: Tensor, embedding: Tensor, noise: Tensor | None = None) -> Tensor:
        """A sample of the next latent: z [..., Z], action [..., A], embedding [..., E] → [..., Z]."""
        return self._sample(*self.moments(z, action, embedding), noise)

    def predict_with_loss(
        self, z: Tensor, action: Tensor, embedding: Tensor, target: LatentTarget
    ) -> tuple[Tensor, Tensor]:
        """A sample [B, Z] and the negative log-likelihood of the target for each coordinate, scaled [B]."""
        mean, variance = self.moments(z, action, embedding)
        y = (target.logits.unflatten(-1, (-1, SIMNORM_GROUP)) @ self.basis).flatten(-2)
        surprise = 0.5 * ((y - mean).square() / variance + variance.log() + math.log(2 * math.pi))
        return self._sample(mean, variance, target.noise), _LOSS_SCALE * surprise.mean(-1)


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
