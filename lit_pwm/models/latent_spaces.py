"""Where the state of flow dynamics lives: in logits before SimNorm, or on the simplex itself."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor

from lit_pwm.models.conditioned_field import centred
from lit_pwm.models.dynamics import LatentTarget
from lit_pwm.models.layers import SIMNORM_GROUP, simnorm

SMALLEST = 1e-8
"""Simplex entries are not taken for smaller than this where their logarithm is needed."""


class LatentSpace(ABC):
    """Translates between latents and the states that a flow moves."""

    origin: float
    """The entries of the state of the uniform latent."""

    @abstractmethod
    def of_latent(self, z: Tensor) -> Tensor:
        """The state of a latent, both [..., Z]."""

    @abstractmethod
    def of_target(self, target: LatentTarget) -> Tensor:
        """The state that a prediction should reach."""

    @abstractmethod
    def point(self, x: Tensor) -> Tensor:
        """What the network is shown of a state: a point on the simplex or near it."""

    @abstractmethod
    def read_out(self, x: Tensor) -> Tensor:
        """The latent of a state: each group non-negative and summing to one."""


class LogitSpace(LatentSpace):
    """States are logits with group mean zero; the latent is their group softmax."""

    origin = 0.0

    def of_latent(self, z: Tensor) -> Tensor:
        """c(log max(z, 1e-8))."""
        return centred(z.clamp_min(SMALLEST).log())

    def of_target(self, target: LatentTarget) -> Tensor:
        """c(ℓ), of the encoder's own logits: log z would underflow."""
        return centred(target.logits)

    def point(self, x: Tensor) -> Tensor:
        """S(x)."""
        return simnorm(x)

    def read_out(self, x: Tensor) -> Tensor:
        """S(x)."""
        return simnorm(x)


class SimplexSpace(LatentSpace):
    """States are the latent's own entries, which a step may take off the simplex; the read-out brings them back."""

    origin = 1 / SIMNORM_GROUP

    def of_latent(self, z: Tensor) -> Tensor:
        """The latent."""
        return z

    def of_target(self, target: LatentTarget) -> Tensor:
        """The target latent."""
        return target.latent

    def point(self, x: Tensor) -> Tensor:
        """The state as it is."""
        return x

    def read_out(self, x: Tensor) -> Tensor:
        """Clip to at least 1e-6, then divide by the group's sum; SimNorm of a simplex point would be another point."""
        groups = x.clamp_min(1e-6).unflatten(-1, (-1, SIMNORM_GROUP))
        return (groups / groups.sum(-1, keepdim=True)).flatten(-2)


SPACES: dict[str, LatentSpace] = {"logit": LogitSpace(), "latent": SimplexSpace()}
