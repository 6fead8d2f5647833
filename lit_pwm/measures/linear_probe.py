"""The linear probe that reads observations out of latents, so that predictions of different encoders can be compared.

A latent has no units, and each encoder has its own scale. A ridge regression from latents to observations gives
predictions in the unit of the observation, alike for any kind of world model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class LinearProbe:
    """An affine map from latents to observations.

    Attributes:
        matrix: weights [Z + 1, O] in double precision, the offset in the last row.
    """

    matrix: Tensor

    def __call__(self, latents: Tensor) -> Tensor:
        """Latents [..., Z] → observations [..., O] in the latents' precision."""
        return (latents.to(self.matrix.dtype) @ self.matrix[:-1] + self.matrix[-1]).to(latents.dtype)

    def error(self, latents: Tensor, observations: Tensor) -> float:
        """Mean squared error over observations [..., O] that belong to latents [..., Z]."""
        return float((self(latents.double()) - observations.double()).square().mean())


def with_one(latents: Tensor, dtype: torch.dtype = torch.float64) -> Tensor:
    """Latents with a constant beside them, [..., Z] → [..., Z + 1]."""
    return torch.cat([latents, torch.ones_like(latents[..., :1])], dim=-1).to(dtype)


def probe_of_sums(inner: Tensor, cross: Tensor, ridge: float = 1e-3) -> LinearProbe:
    """The probe of N pairs of a latent and an observation, from sums over them, which add up over batches and ranks.

    Minimises mean ‖W z + b − o‖² + ridge · v ‖W‖², where v is the mean variance of the latent's entries: the scale of
    an encoder does not matter, and the offset is not shrunk.

    Args:
        inner: Σ x xᵀ [Z + 1, Z + 1] for x = `with_one(z)`, so that the last entry is N.
        cross: Σ x oᵀ [Z + 1, O].
        ridge: the penalty, as a fraction of the latents' mean variance.
    """
    n = inner[-1, -1]
    mean_z, mean_o = inner[-1, :-1] / n, cross[-1] / n
    covariance = inner[:-1, :-1] / n - torch.outer(mean_z, mean_z)
    penalty = ridge * covariance.diagonal().mean().clamp_min(1e-12)
    weights = torch.linalg.solve(
        covariance + penalty * torch.eye(len(covariance)).to(covariance), cross[:-1] / n - torch.outer(mean_z, mean_o)
    )
    return LinearProbe(torch.cat([weights, (mean_o - mean_z @ weights)[None]]))


def fit_probe(latents: Tensor, observations: Tensor, ridge: float = 1e-3) -> LinearProbe:
    """The probe of latents [N, Z] and observations [N, O], as `probe_of_sums`."""
    return probe_of_sums(*_sums(latents, observations), ridge)


def best_probe(
    fitted: tuple[Tensor, Tensor],
    held_out: tuple[Tensor, Tensor],
    ridges: Sequence[float] = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2),
) -> LinearProbe:
    """The probe whose penalty does best on latents and observations that it was not fitted on.

    Args:
        fitted: latents [N, Z] and observations [N, O].
        held_out: others [M, Z] and [M, O].
        ridges: the penalties to choose from.
    """
    sums = _sums(*fitted)
    return min((probe_of_sums(*sums, ridge) for ridge in ridges), key=lambda probe: probe.error(*held_out))


def _sums(latents: Tensor, observations: Tensor) -> tuple[Tensor, Tensor]:
    x = with_one(latents)
    return x.T @ x, x.T @ observations.double()
