"""Integration, densities, times and paths against closed forms and torchdiffeq."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from scipy import integrate as quadrature
from scipy import stats

from lit_pwm.errors import LitPWMError
from lit_pwm.flow import (
    Dopri5,
    FixedStep,
    TimeEmbedding,
    VelocityField,
    integrate,
    log_abs_det_jacobian,
    straight_path,
    times,
)
from lit_pwm.flow.integration import integrate_torchdiffeq
from lit_pwm.measures.compute import counting

FIXED = ("euler", "midpoint", "heun", "rk4")
ORDER = {"euler": 1, "midpoint": 2, "heun": 2, "rk4": 4}


class Network(VelocityField):
    def __init__(self, dim, dtype=torch.float32):
        super().__init__()
        self.net = torch.nn.Sequential(torch.nn.Linear(dim + 1, 16), torch.nn.Tanh(), torch.nn.Linear(16, dim)).to(
            dtype
        )

    def velocity(self, tau, x, context):
        tau = torch.as_tensor(tau, dtype=x.dtype).expand(*x.shape[:-1], 1)
        return self.net(torch.cat([x, tau], -1)) * context


def forced(tau, x):
    """dx/dτ = −2x + cos 3τ, whose solution `exact` is."""
    return -2 * x + torch.cos(torch.as_tensor(3 * tau, dtype=x.dtype))


def exact(x0):
    particular = lambda t: (2 * math.cos(3 * t) + 3 * math.sin(3 * t)) / 13  # noqa: E731
    return particular(1) + (x0 - particular(0)) * math.exp(-2)


@pytest.mark.parametrize("method", FIXED)
def test_order_of_convergence(method):
    x0 = torch.linspace(-1, 2, 7, dtype=torch.float64)[:, None]
    errors = [(integrate(forced, x0, FixedStep(method, k)) - exact(x0)).abs().max().item() for k in (8, 16, 32)]
    observed = [math.log2(a / b) for a, b in pairwise(errors)]
    assert observed == pytest.approx([ORDER[method]] * 2, abs=0.2)


def test_dopri5_meets_its_tolerance():
    x0 = torch.linspace(-1, 2, 7, dtype=torch.float64)[:, None]
    for tolerance in (1e-4, 1e-8):
        error = (integrate(forced, x0, Dopri5(tolerance, tolerance)) - exact(x0)).abs().max()
        assert error < 10 * tolerance


@pytest.mark.parametrize("substeps", [1, 2, 3, 61])
@pytest.mark.parametrize("method", FIXED)
def test_the_lean_loop_is_torchdiffeq(method, substeps):
    torch.manual_seed(0)
    field, x0 = Network(4), torch.randn(9, 4)
    velocity = lambda tau, x: field(tau, x, 1.5)  # noqa: E731
    solver, evaluations = FixedStep(method, substeps), {}
    for function in (integrate, integrate_torchdiffeq):
        with counting({"field": field}) as counted:
            evaluations[function] = function(velocity, x0, solver)
        assert counted == {"field": solver.evaluations}
    torch.testing.assert_close(*evaluations.values(), atol=1e-6, rtol=0)


@pytest.mark.parametrize("solver", [*(FixedStep(m, 3) for m in FIXED), Dopri5(1e-9, 1e-9)], ids=str)
def test_gradients_through_the_solver_are_exact(solver):
    torch.manual_seed(0)
    field = Network(3, torch.float64)
    x0 = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
    context = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)

    def end(x, c, *parameters):
        return integrate(lambda tau, y: field(tau, y, c), x, solver)

    assert torch.autograd.gradcheck(end, (x0, context, *field.parameters()), atol=1e-6)


def test_the_adjoint_agrees_with_backpropagation_through_the_steps():
    torch.manual_seed(0)
    field = Network(3, torch.float64)
    x0 = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    context = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    tensors = [x0, context, *field.parameters()]
    gradients = []
    for adjoint in (False, True):
        scaled = 2 * context  # something between the leaf and the field, as a condition is
        through = (scaled, *field.parameters()) if adjoint else None
        end = integrate(lambda tau, y, c=scaled: field(tau, y, c), x0, FixedStep("rk4", 40), through)
        gradients.append(torch.autograd.grad(end.square().sum(), tensors))
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


def test_bad_solvers_are_refused():
    with pytest.raises(LitPWMError, match="euler"):
        FixedStep("eule")
    with pytest.raises(LitPWMError, match="substeps 0"):
        FixedStep(substeps=0)
    with pytest.raises(LitPWMError, match="rtol 0"):
        Dopri5(rtol=0)


def test_time_embedding_tells_times_apart_and_takes_numbers_and_tensors():
    embedding = TimeEmbedding(8, 5)
    times = torch.linspace(0, 1, 11)
    rows = embedding(times)
    assert rows.shape == (11, 5)
    torch.testing.assert_close(embedding(0.5), rows[5])
    assert torch.pdist(rows).min() > 1e-3
    assert list(embedding.state_dict()) == ["linear.weight"]


@pytest.mark.parametrize(
    ("distribution", "cdf"),
    [
        ("uniform", lambda t: t),
        ("logit_normal", lambda t: stats.norm.cdf(stats.logistic.ppf(t))),
        ("early", lambda t: 1 - (1 - t) ** 2),
    ],
)
def test_times_follow_their_distribution(distribution, cdf):
    tau = times(distribution, torch.randn(50, 100, generator=torch.Generator().manual_seed(0), dtype=torch.float64))
    assert tau.shape == (50, 100)
    assert ((tau >= 0) & (tau < 1)).all()
    extreme = times(distribution, torch.tensor([-40.0, 40.0]))  # where their distribution function is zero and one
    assert 0 <= extreme[0] < 1e-3
    assert 0.999 < extreme[1] < 1
    assert stats.kstest(tau.flatten().numpy(), cdf).pvalue > 1e-3


def test_straight_path():
    start, end = torch.randn(6, 3), torch.randn(6, 3)
    torch.testing.assert_close(straight_path(start, end, torch.zeros(6)), start)
    torch.testing.assert_close(straight_path(start, end, torch.ones(6)), end)
    torch.testing.assert_close(straight_path(start, end, torch.full((6,), 0.25)), 0.75 * start + 0.25 * end)


def test_log_determinant_of_a_linear_map_and_of_the_dimensions_that_count():
    torch.manual_seed(0)
    matrix = torch.randn(4, 4, dtype=torch.float64)
    x = torch.randn(6, 4, dtype=torch.float64)
    value, log_det = log_abs_det_jacobian(lambda v: v @ matrix.T, x)
    torch.testing.assert_close(value, x @ matrix.T)
    torch.testing.assert_close(log_det, torch.linalg.slogdet(matrix).logabsdet.expand(6))
    mask = torch.tensor([1.0, 1, 0, 1], dtype=torch.float64).expand(6, 4)
    kept = matrix[[0, 1, 3]][:, [0, 1, 3]]
    value, log_det = log_abs_det_jacobian(lambda v: v @ matrix.T, x, mask)
    torch.testing.assert_close(log_det, torch.linalg.slogdet(kept).logabsdet.expand(6))


def test_density_of_a_flow_integrates_to_one():
    """Change of variables on a grid: the density at Φ(x), times the area that Φ gives a cell, sums to one."""
    torch.manual_seed(0)
    field = Network(1, torch.float64)

    def density(y):
        start = torch.tensor([[y]], dtype=torch.float64)
        back = integrate(lambda tau, x: -field(1 - tau, x, 1.0), start, FixedStep("rk4", 64))
        _, log_det = log_abs_det_jacobian(
            lambda x: integrate(lambda tau, v: field(tau, v, 1.0), x, FixedStep("rk4", 64)), back
        )
        return math.exp(stats.norm.logpdf(back.item()) - log_det.item())

    assert quadrature.quad(density, -9, 9, limit=40, epsabs=1e-4)[0] == pytest.approx(1, abs=1e-3)
