"""Integration of a velocity field from τ = 0 to τ = 1.

Fixed-step methods run in a plain loop whose times are Python numbers: the same arithmetic as torchdiffeq's, which the
tests hold it to, without its bookkeeping (and, on a GPU, without a synchronisation for every time that a field reads).
The adaptive method and the adjoint are torchdiffeq's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal, cast

import torch
from torch import Tensor, nn

from lit_pwm.options import Count, Positive, check_options

Method = Literal["euler", "midpoint", "heun", "rk4", "dopri5"]
Velocity = Callable[[float, Tensor], Tensor]
"""(τ, x [..., D]) → dx/dτ [..., D]."""

_TORCHDIFFEQ_NAMES: dict[str, str] = {"heun": "heun2"}


@dataclass(frozen=True)
class Solver:
    """How to integrate.

    Attributes:
        method: `euler` and `midpoint` and `heun` and `rk4` (the 3/8 rule) take `substeps` equal steps; `dopri5` chooses
            its own from `rtol` and `atol`.
        substeps: K, the number of equal steps.
        rtol: relative tolerance of dopri5.
        atol: absolute tolerance of dopri5.
        adjoint: compute gradients by integrating backwards instead of through the steps. It needs less memory only
            when there are very many steps, is slower (torchdiffeq #243, #259), and its gradients carry the solver's
            error.

    Raises:
        LitPWMError: an unknown method, no steps, or a tolerance that is not positive.
    """

    method: Method = "euler"
    substeps: Count = 2
    rtol: Positive = 1e-5
    atol: Positive = 1e-5
    adjoint: bool = False

    def __post_init__(self) -> None:
        check_options(Solver, vars(self))

    @property
    def evaluations(self) -> int | None:
        """How often a fixed-step method evaluates the field; None for dopri5, which decides itself."""
        return {"euler": 1, "midpoint": 2, "heun": 2, "rk4": 4}.get(self.method, 0) * self.substeps or None

    @property
    def reads_end(self) -> bool:
        """Whether the velocity at τ = 1 is evaluated, where an end-point parametrisation has none."""
        return self.adjoint or self.method in ("heun", "rk4", "dopri5")  # the adjoint starts there, backwards


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


def integrate(velocity: Velocity, x: Tensor, solver: Solver, depends_on: Iterable[Tensor] = ()) -> Tensor:
    """x(1) of dx/dτ = velocity(τ, x) from x(0) = x; gradients flow through the steps.

    Args:
        velocity: the field.
        x: x(0) [..., D].
        solver: method and number of steps.
        depends_on: parameters and other tensors that the field reads; only the adjoint needs to be told.
    """
    if solver.adjoint or solver.method == "dopri5":
        return integrate_torchdiffeq(velocity, x, solver, depends_on)
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


def integrate_torchdiffeq(velocity: Velocity, x: Tensor, solver: Solver, depends_on: Iterable[Tensor] = ()) -> Tensor:
    """As `integrate`, by torchdiffeq for every method.

    Where dopri5 finds no step small enough, as for states and fields that are not finite, the result is not a number.
    """
    from torchdiffeq import odeint, odeint_adjoint

    steps = 1 if solver.method == "dopri5" else solver.substeps
    # linspace and not `step_size`, which takes 62 steps at K = 61.
    times = torch.linspace(0, 1, steps + 1, dtype=x.dtype, device=x.device)
    options = {
        "method": _TORCHDIFFEQ_NAMES.get(solver.method, solver.method),
        "rtol": solver.rtol,
        "atol": solver.atol,
    }
    try:
        if solver.adjoint:
            parameters = tuple(tensor for tensor in depends_on if tensor.requires_grad)
            return odeint_adjoint(_Field(velocity), x, times, adjoint_params=parameters, **options)[-1]
        return odeint(velocity, x, times, **options)[-1]
    except AssertionError as error:
        if "underflow in dt" not in str(error):
            raise
        return x * torch.nan
