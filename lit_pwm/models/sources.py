"""Where a flow over latents starts: the uniform latent, the current one, or noise."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Annotated

import torch
from torch import Tensor, nn

from lit_pwm.errors import LitPWMError
from lit_pwm.models.conditioned_field import centred
from lit_pwm.models.latent_spaces import LatentSpace
from lit_pwm.options import Count, CountOrZero, Positive, Range, checked

NoisePower = Annotated[float, Range(0, 10, open_least=True)]
"""1 for normal noise, 3 for heavy tails."""


class Source(nn.Module, ABC):
    """Gives x(0), a state of `space`, for a latent [..., Z]."""

    def __init__(self, space: LatentSpace) -> None:
        super().__init__()
        self.space = space

    @abstractmethod
    def forward(self, z: Tensor) -> Tensor:
        """x(0) [..., Z]."""


class ZeroSource(Source):
    """The uniform latent."""

    def forward(self, z: Tensor) -> Tensor:
        """As `Source`."""
        return torch.full_like(z, self.space.origin)


class LatentSource(Source):
    """The current latent."""

    def forward(self, z: Tensor) -> Tensor:
        """As `Source`."""
        return self.space.of_latent(z)


class NoiseSource(Source):
    """Centred noise around the uniform latent, drawn from torch's global generator.

    Args:
        space: where the flow's states live.
        latent_dim: Z.
        scale: σ, the noise's standard deviation before it is centred.
        power: p; the noise is sign(ε) |ε|^p of a normal ε, scaled to unit variance.
        dim: dimensions of the noise, which fixed orthonormal directions embed in the state; 0 for all.

    Raises:
        LitPWMError: a power that is not positive, or dimensions that the state does not have.
    """

    directions: Tensor | None

    @checked
    def __init__(
        self, space: LatentSpace, latent_dim: Count, scale: Positive, power: NoisePower, dim: CountOrZero
    ) -> None:
        super().__init__(space)
        if dim > latent_dim:
            raise LitPWMError(
                f"FlowDynamics has noise_dim {dim}; give 1 to {latent_dim}, the latent's width, or 0 for noise in all "
                f"entries."
            )
        self.scale, self.power, self.width = scale, power, dim or latent_dim
        self.register_buffer("directions", _directions(dim, latent_dim) if dim else None)

    def forward(self, z: Tensor) -> Tensor:
        """As `Source`."""
        return self.space.origin + self.scale * centred(self.noise(z))

    def noise(self, z: Tensor) -> Tensor:
        """Noise of unit variance per entry, on average, [..., Z]."""
        noise = torch.randn(*z.shape[:-1], self.width, dtype=z.dtype, device=z.device)
        if self.power != 1:
            noise = noise.sign() * noise.abs().pow(self.power) / _deviation(self.power)
        if self.directions is None:
            return noise
        with torch.autocast(z.device.type, enabled=False):  # a state's precision is that of the latent
            return noise @ self.directions


def _deviation(power: float) -> float:
    """Standard deviation of sign(ε) |ε|^p: √E|ε|^2p."""
    return math.sqrt(2**power * math.gamma(power + 0.5) / math.sqrt(math.pi))


def _directions(count: int, dim: int) -> Tensor:
    """Orthonormal rows, scaled so that standard normal coordinates have unit variance per entry on average."""
    # From a generator of their own: the weights' initialisation does not depend on the number of directions.
    gaussian = torch.randn(dim, count, generator=torch.Generator().manual_seed(0), device="cpu")
    return torch.linalg.qr(gaussian).Q.T * (dim / count) ** 0.5
