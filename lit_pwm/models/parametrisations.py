"""What the network of a flow predicts, and what follows from it: the velocity and the one-step estimate of x(1)."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor

from lit_pwm.models.latent_spaces import LatentSpace


def _column(tau: float | Tensor) -> float | Tensor:
    """τ so that it multiplies states: a number, or [..., 1]."""
    return tau[..., None] if isinstance(tau, Tensor) and tau.ndim else tau


class Parametrisation(ABC):
    """How the value of a network at (τ, x) is to be read. States x are [..., Z], τ a number or [...]."""

    def seen(self, x: Tensor, tau: float | Tensor, space: LatentSpace) -> Tensor:
        """The state that the network is shown at x."""
        return x

    @abstractmethod
    def estimate(self, value: Tensor, x: Tensor, tau: float | Tensor, space: LatentSpace) -> Tensor:
        """The one-step estimate of x(1): where a straight line from here would end."""

    def velocity(self, value: Tensor, x: Tensor, tau: float | Tensor, space: LatentSpace) -> Tensor:
        """dx/dτ: straight towards the estimate."""
        return (self.estimate(value, x, tau, space) - x) * (1 / (1 - _column(tau)))

    def euler(self, value: Tensor, x: Tensor, tau: float, dt: float, space: LatentSpace) -> Tensor:
        """The state after Euler's step from τ to τ + dt."""
        return x.add(self.velocity(value, x, tau, space), alpha=dt)

    @abstractmethod
    def matching_error(
        self, value: Tensor, begin: Tensor, end: Tensor, x: Tensor, tau: Tensor, space: LatentSpace
    ) -> Tensor:
        """Flow matching's squared error, averaged over entries, of the value at x on the path from begin to end."""


class VelocityParametrisation(Parametrisation):
    """The network gives the velocity; flow matching regresses it on x(1) − x(0)."""

    def estimate(self, value: Tensor, x: Tensor, tau: float | Tensor, space: LatentSpace) -> Tensor:
        """x + (1 − τ) v."""
        return x + (1 - _column(tau)) * value

    def velocity(self, value: Tensor, x: Tensor, tau: float | Tensor, space: LatentSpace) -> Tensor:
        """v."""
        return value

    def matching_error(
        self, value: Tensor, begin: Tensor, end: Tensor, x: Tensor, tau: Tensor, space: LatentSpace
    ) -> Tensor:
        """mean_D (v − (x(1) − x(0)))²."""
        return (value - (end - begin)).square().mean(-1)


class EndpointParametrisation(Parametrisation):
    """The network gives the end point x̂; flow matching regresses it on x(1) with weight 0.9 τ + 0.1.

    (Weighting and form: clean-end-point prediction as in shortcut world models, where the velocity's own error would
    grow like 1/(1 − τ)².)
    """

    def estimate(self, value: Tensor, x: Tensor, tau: float | Tensor, space: LatentSpace) -> Tensor:
        """x̂: the centred network around the space's origin."""
        return value + space.origin if space.origin else value

    def euler(self, value: Tensor, x: Tensor, tau: float, dt: float, space: LatentSpace) -> Tensor:
        """Part of the way from x to x̂, which the last step reaches: the same in one operation or none."""
        end, part = self.estimate(value, x, tau, space), dt / (1 - tau)
        return end if part > 1 - 1e-9 else x.lerp(end, part)

    def matching_error(
        self, value: Tensor, begin: Tensor, end: Tensor, x: Tensor, tau: Tensor, space: LatentSpace
    ) -> Tensor:
        """(0.9 τ + 0.1) mean_D (x̂ − x(1))²."""
        return (0.9 * tau + 0.1) * (self.estimate(value, x, tau, space) - end).square().mean(-1)


class ResidualParametrisation(EndpointParametrisation):
    """The network corrects the end of the straight line from the origin through x: x̂ = x/τ + value, x̂ = value at τ = 0.

    It is shown that end, x/τ, instead of x. Under Euler with K = 2 the states are then those of `RefinementDynamics`
    with a time embedding: the one form of flow that contains the refinement.
    """

    def seen(self, x: Tensor, tau: float | Tensor, space: LatentSpace) -> Tensor:
        """The straight line's end."""
        if isinstance(tau, float) and tau == 0:
            return x  # the origin itself: the line has no direction yet
        return space.origin + (x - space.origin) / _floored(_column(tau))

    def estimate(self, value: Tensor, x: Tensor, tau: float | Tensor, space: LatentSpace) -> Tensor:
        """x/τ + value."""
        return self.seen(x, tau, space) + value


def _floored(tau: float | Tensor) -> float | Tensor:
    return tau.clamp_min(1e-3) if isinstance(tau, Tensor) else max(tau, 1e-3)


PARAMETRISATIONS: dict[str, Parametrisation] = {
    "velocity": VelocityParametrisation(),
    "endpoint": EndpointParametrisation(),
    "residual": ResidualParametrisation(),
}
