"""Integration of a velocity field from τ = 0 to τ = 1.

Fixed-step methods run in a plain loop whose times are Python numbers: the same arithmetic as torchdiffeq's, which the
tests hold it to, without its bookkeeping (and, on a GPU, without a synchronisation for every time that a field reads).
The adaptive method and the adjoint are torchdiffeq's.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal, cast

import torch
from torch import Tensor, nn

from lit_pwm.options import Count, OptionObject, Positive

Velocity = Callable[[float, Tensor], Tensor]
"""(τ, x [..., D]) → dx/dτ [..., D]."""

_TORCHDIFFEQ_NAMES: dict[str, str] = {"heun": "heun2"}


class Solver(OptionObject, ABC):
    """How to integrate."""

    @property
    @abstractmethod
    def evaluations(self) -> int | None:
        """How often the field is evaluated; None if the solver decides that by what it computes."""

    @property
    @abstractmethod
    def reads_end(self) -> bool:
        """Whether the velocity at τ = 1 is evaluated, where an end-point parametrisation has none."""


@dataclass(frozen=True)
class FixedStep(Solver):
    """Equal steps.

    Attributes:
        method: `euler`, `midpoint`, `heun` or `rk4` (the 3/8 rule).
        substeps: K, the number of steps.
    """

    method: Literal["euler", "midpoint", "heun", "rk4"] = "euler"
    substeps: Count = 2

    @property
    def evaluations(self) -> int:
        """As `Solver`."""
        return {"euler": 1, "midpoint": 2, "heun": 2, "rk4": 4}[self.method] * self.substeps

    @property
    def reads_end(self) -> bool:
        """As `Solver`."""
        return self.method in ("heun", "rk4")


@dataclass(frozen=True)
class Dopri5(Solver):
    """Steps of its own choice, by an embedded Runge–Kutta pair of order 5.

    Attributes:
        rtol: relative tolerance.
        atol: absolute tolerance.
    """

    rtol: Positive = 1e-5
    atol: Positive = 1e-5

    @property
    def evaluations(self) -> None:
        """As `Solver`."""
        return None

    @property
    def reads_end(self) -> bool:
        """As `Solver`."""
        return True


def _euler(f: Velocity, t: float, dt: float, x: Tensor) -> Tensor:
    return x.add(f(t, x), alpha=dt)


def _midpoint(f: Velocity, t: float, dt: float, x: Tensor) -> Tensor:
    return x.add(f(t + dt / 2, x.add(f(t, x), alpha=dt / 2)), alpha=dt)


def _heun(f: Velocity, t: float, dt: float, x: Tensor) -> Tensor:
    k1 = f(t, x)
    k2 = f(t + dt, x.add(k1, alpha=dt))
    return x.add(k1 + k2, alpha=dt / 2)


def _rk4(f: Velocity, t: float, dt: float, x: Tensor) -> Tensor:
    k1 = f(t, x)
    k2 = f(t + dt / 3, x + dt / 3 * k1)
    k3 = f(t + 2 * dt / 3, x + dt * (k2 - k1 / 3))
    k4 = f(t + dt, x + dt * (k1 - k2 + k3))
    return x + dt / 8 * (k1 + 3 * (k2 + k3) + k4)


_STEPS: dict[str, Callable[[Velocity, float, float, Tensor], Tensor]] = {
    "euler": _euler,
    "midpoint": _midpoint,
    "heun": _heun,
    "rk4": _rk4,
}


def integrate(velocity: Velocity, x: Tensor, solver: Solver, adjoint_through: Iterable[Tensor] | None = None) -> Tensor:
    """x(1) of dx/dτ = velocity(τ, x) from x(0) = x; gradients flow through the steps.

    Args:
        velocity: the field.
        x: x(0) [..., D].
        solver: how.
        adjoint_through: compute gradients by integrating backwards instead of through the steps: all tensors that the
            field reads and that are to get gradients, none of them a function of another, which would count twice. It
            needs less memory only where there are very many steps, is slower (torchdiffeq #243, #259), and its
            gradients carry the solver's error.
    """
    if not isinstance(solver, FixedStep) or adjoint_through is not None:
        return integrate_torchdiffeq(velocity, x, solver, adjoint_through)
    step, dt = _STEPS[solver.method], 1 / solver.substeps
    for k in range(solver.substeps):
        x = step(velocity, k * dt, dt, x)
    return x


class _Field(nn.Module):
    """A velocity as the module that torchdiffeq's adjoint insists on."""

    def __init__(self, velocity: Velocity) -> None:
        super().__init__()
        self.function = velocity

    def forward(self, t: Tensor, x: Tensor) -> Tensor:
        return self.function(cast("float", t), x)


def integrate_torchdiffeq(
    velocity: Velocity, x: Tensor, solver: Solver, adjoint_through: Iterable[Tensor] | None = None
) -> Tensor:
    """As `integrate`, by torchdiffeq for every solver.

    Where dopri5 finds no step small enough, as for states and fields that are not finite, the result is not a number.
    """
    from torchdiffeq import odeint, odeint_adjoint

    options: dict[str, object] = {"method": "dopri5"}
    steps = 1
    if isinstance(solver, FixedStep):
        options["method"], steps = _TORCHDIFFEQ_NAMES.get(solver.method, solver.method), solver.substeps
    elif isinstance(solver, Dopri5):
        options |= {"rtol": solver.rtol, "atol": solver.atol}
    # linspace and not `step_size`, which takes 62 steps at K = 61.
    times = torch.linspace(0, 1, steps + 1, dtype=x.dtype, device=x.device)
    try:
        if adjoint_through is not None:
            parameters = tuple(tensor for tensor in adjoint_through if tensor.requires_grad)
            return odeint_adjoint(_Field(velocity), x, times, adjoint_params=parameters, **options)[-1]
        return odeint(velocity, x, times, **options)[-1]
    except AssertionError as error:
        if "underflow in dt" not in str(error):
            raise
        return x * torch.nan
