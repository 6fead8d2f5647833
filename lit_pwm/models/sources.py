"""Where a flow over latents starts: the uniform latent, the current one, or noise."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Annotated, ClassVar

import torch
from torch import Tensor

from lit_pwm.errors import LitPWMError
from lit_pwm.models.component import Component
from lit_pwm.models.conditioned_field import centred
from lit_pwm.models.latent_spaces import LatentSpace
from lit_pwm.options import Count, CountOrZero, Positive, Range

NoisePower = Annotated[float, Range(0, 10, open_least=True)]
"""1 for normal noise, 3 for heavy tails."""


class Source(Component):
    """Gives x(0), a state of `space`, for a latent [..., Z].

    Args:
        latent_dim: Z.
        space: where the flow's states live.

    Attributes:
        noise_shape: shape of the standard normal numbers that x(0) of one latent is made of; None where nothing is
            drawn.
    """

    dimensions: ClassVar[tuple[str, ...]] = ("latent_dim", "space")
    noise_shape: tuple[int, ...] | None = None

    def __init__(self, latent_dim: Count, space: LatentSpace) -> None:
        super().__init__()
        self.latent_dim, self.space = latent_dim, space

    @abstractmethod
    def forward(self, z: Tensor, noise: Tensor | None) -> Tensor:
        """Latents [..., Z] and noise [..., *noise_shape], None where nothing is drawn → x(0) [..., Z]."""


class ZeroSource(Source):
    """The uniform latent."""

    def forward(self, z: Tensor, noise: Tensor | None) -> Tensor:
        """As `Source`."""
        return torch.full_like(z, self.space.origin)


class LatentSource(Source):
    """The current latent."""

    def forward(self, z: Tensor, noise: Tensor | None) -> Tensor:
        """As `Source`."""
        return self.space.of_latent(z)


class NoiseSource(Source):
    """Centred noise around the uniform latent: predictions are then samples.

    Args:
        latent_dim: Z.
        space: where the flow's states live.
        scale: σ, the noise's standard deviation before it is centred.
        power: p; the noise is sign(ε) |ε|^p of a normal ε, scaled to unit variance. With 3 its tails are heavy: most
            draws are near zero and few are large, as rare events want it, because a smooth map hardly makes heavy tails
            of light ones (arXiv 1907.04481).
        dim: dimensions of the noise, which fixed orthonormal directions embed in the state; 0 for noise in all of them.
            What a network cannot tell apart from the outcome it leaves in its samples, so few are better where few
            suffice.

    Raises:
        LitPWMError: a scale or power that is not positive, or dimensions that the state does not have.
    """

    directions: Tensor | None

    def __init__(
        self,
        latent_dim: Count,
        space: LatentSpace,
        scale: Positive = 1.0,
        power: NoisePower = 1.0,
        dim: CountOrZero = 0,
    ) -> None:
        super().__init__(latent_dim, space)
        if dim > latent_dim:
            raise LitPWMError(
                f"NoiseSource has dim {dim}; give 1 to {latent_dim}, the latent's width, or 0 for noise in all entries."
            )
        self.scale, self.power = scale, power
        self.noise_shape = (dim or latent_dim,)
        self.register_buffer("directions", _directions(dim, latent_dim) if dim else None)

    def forward(self, z: Tensor, noise: Tensor | None) -> Tensor:
        """As `Source`."""
        if noise is None:
            raise ValueError(f"a noise source needs standard normal numbers {list(z.shape[:-1])} + {self.noise_shape}")
        return self.space.origin + self.scale * centred(self.shaped(noise))

    def shaped(self, noise: Tensor) -> Tensor:
        """Standard normal numbers [..., *noise_shape] → noise of unit variance per entry, on average, [..., Z]."""
        if self.power != 1:
            noise = noise.sign() * noise.abs().pow(self.power) / _deviation(self.power)
        if self.directions is None:
            return noise
        with torch.autocast(noise.device.type, enabled=False):  # a state's precision is that of the latent
            return noise @ self.directions


def _deviation(power: float) -> float:
    """Standard deviation of sign(ε) |ε|^p: √E|ε|^2p."""
    return math.sqrt(2**power * math.gamma(power + 0.5) / math.sqrt(math.pi))


def _directions(count: int, dim: int) -> Tensor:
    """Orthonormal rows, scaled so that standard normal coordinates have unit variance per entry on average."""
    # From a generator of their own: the weights' initialisation does not depend on the number of directions.
    gaussian = torch.randn(dim, count, generator=torch.Generator().manual_seed(0), device="cpu")
    return torch.linalg.qr(gaussian).Q.T * (dim / count) ** 0.5
