"""Networks under `torch.func` and `torch.compile`: what eager mode computes, with no more compilations than forms."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import func
from torch._dynamo.testing import CompileCounter
from torch.autograd import forward_ad

from lit_pwm.flow import FixedStep
from lit_pwm.measures.compute import counting
from lit_pwm.models import (
    CriticEnsemble,
    EnergyLoss,
    FlowActor,
    FlowDynamics,
    FlowMatching,
    LatentSource,
    LatentTarget,
    MLPActor,
    MLPDynamics,
    NoiseSource,
    RefinementDynamics,
)
from lit_pwm.models.layers import mish, simnorm

# `jacfwd` and `jvp` load torch's own decompositions, which it still scripts.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")

FUNCTIONS = {"mish": mish, "simnorm": simnorm}
DYNAMICS = {
    "mlp": partial(MLPDynamics, hidden_dim=24),
    "refinement": partial(RefinementDynamics, hidden_dim=24),
    "flow": partial(FlowDynamics, hidden_dim=24),
    "flow-velocity-rk4": partial(
        FlowDynamics, hidden_dim=24, parametrisation="velocity", solver=FixedStep("rk4"), source=LatentSource
    ),
    "flow-sampled": partial(FlowDynamics, hidden_dim=24, source=partial(NoiseSource, dim=3)),
}
Z, A, E = 16, 2, 4


@pytest.fixture(params=DYNAMICS)
def make(request):
    torch.manual_seed(0)
    return DYNAMICS[request.param]


def inputs(dynamics, *lead):
    generator = torch.Generator().manual_seed(1)
    z = simnorm(torch.randn(*lead, Z, generator=generator))
    rest = [torch.randn(*lead, width, generator=generator) for width in (A, E)]
    if dynamics.noise_shape is not None:
        rest.append(torch.randn(*lead, *dynamics.noise_shape, generator=generator))
    return z, *rest


def large(dynamics):
    with torch.no_grad():
        for parameter in dynamics.parameters():
            parameter.mul_(4)  # from where outputs are nearly the same
    return dynamics


@pytest.mark.parametrize("name", FUNCTIONS)
def test_transforms_of_the_functions_give_their_derivatives(name):
    function, x, tangent = FUNCTIONS[name], torch.randn(5, 16).double(), torch.randn(5, 16).double()
    jacobians = [torch.autograd.functional.jacobian(function, row) for row in x]
    torch.testing.assert_close(func.vmap(function)(x), function(x))
    for transform in (func.jacrev, func.jacfwd):
        torch.testing.assert_close(func.vmap(transform(function))(x), torch.stack(jacobians))
    products = torch.stack([jacobian @ row for jacobian, row in zip(jacobians, tangent, strict=True)])
    torch.testing.assert_close(func.jvp(function, (x,), (tangent,)), (function(x), products))
    with forward_ad.dual_level():
        dual = forward_ad.unpack_dual(function(forward_ad.make_dual(x, tangent)))
    torch.testing.assert_close(dual.tangent, products)
    second = torch.autograd.functional.hessian(lambda row: function(row).pow(2).sum(), x[0])
    torch.testing.assert_close(func.hessian(lambda row: function(row).pow(2).sum())(x[0]), second)


def test_an_ensemble_of_dynamics_is_stacked(make):
    """As `torch.func` documents it, and through a rollout: parameters of three networks, one call."""
    members = [large(make(Z, A, E)).eval().double() for _ in range(3)]
    parameters, buffers = func.stack_module_state(members)
    given = tuple(x.double() for x in inputs(members[0], 7))

    def call(parameters, buffers):
        state = (parameters, buffers)
        return func.functional_call(members[0], state, (func.functional_call(members[0], state, given), *given[1:]))

    stacked = func.vmap(call)(parameters, buffers)
    alone = torch.stack([member(member(*given), *given[1:]) for member in members])
    torch.testing.assert_close(stacked, alone)
    assert (alone[0] - alone[1]).abs().max() > 1e-3
    members[0](*given)  # what was computed inside left nothing behind
    loss = lambda parameters: call(parameters, {k: v[0] for k, v in buffers.items()}).square().sum()  # noqa: E731
    gradients = func.grad(loss)({name: value[0].detach() for name, value in parameters.items()})
    members[0].zero_grad()
    members[0](members[0](*given), *given[1:]).square().sum().backward()
    for name, parameter in members[0].named_parameters():
        torch.testing.assert_close(gradients[name], parameter.grad, msg=name)


def test_jacobians_with_respect_to_one_input(make):
    """Only what is differentiated is wrapped; the rest, and sums with it, are not."""
    dynamics = large(make(Z, A, E)).double()
    z, *rest = (x.double() for x in inputs(dynamics, 3))
    for row in range(3):
        fixed = [x[row] for x in rest]
        for transform in (func.jacrev, func.jacfwd):
            to_z = transform(lambda x, fixed=fixed: dynamics(x, *fixed))(z[row])
            to_action = transform(lambda a, row=row, fixed=fixed: dynamics(z[row], a, *fixed[1:]))(fixed[0])
            expected = torch.autograd.functional.jacobian(
                lambda x, a, fixed=fixed: dynamics(x, a, *fixed[1:]), (z[row], fixed[0])
            )
            torch.testing.assert_close((to_z, to_action), expected)
    candidates = torch.randn(5, 3, A).double()
    torch.testing.assert_close(
        func.vmap(lambda action: dynamics(z, action, *rest[1:]))(candidates),
        torch.stack([dynamics(z, action, *rest[1:]) for action in candidates]),
    )


@pytest.mark.parametrize("kind", [MLPActor, partial(FlowActor, form="gated"), CriticEnsemble])
def test_ensembles_of_actors_and_critics_are_stacked(kind):
    torch.manual_seed(0)
    dims = (Z, 2) if kind is CriticEnsemble else (Z, A, 2)
    members = [kind(*dims, hidden_dims=(12, 8), task_dim=3) for _ in range(3)]
    z, task = torch.rand(6, Z), torch.tensor([0, 1, 0, 1, 0, 1])
    given = (z, task) if kind is CriticEnsemble else (z, task, False, torch.randn(6, A))
    stacked = func.vmap(lambda p, b: func.functional_call(members[0], (p, b), given))(*func.stack_module_state(members))
    torch.testing.assert_close(stacked, torch.stack([member(*given) for member in members]))


@pytest.mark.parametrize("kind", ["mlp", "refinement", "flow", "flow-sampled"])
def test_compiled_once_for_each_form_of_call(kind):
    """Again and again: two graphs, with and without gradient, and no other."""
    torch._dynamo.reset()
    torch.manual_seed(0)
    dynamics, counter = large(DYNAMICS[kind](Z, A, E)), CompileCounter()
    compiled, given = torch.compile(dynamics, backend=counter, dynamic=False), inputs(dynamics, 7)
    for _ in range(6):
        torch.testing.assert_close(compiled(*given), dynamics(*given))
        with torch.no_grad():
            compiled(*given)
    assert counter.frame_count == 2
    with counting({"dynamics": dynamics}) as evaluated:
        dynamics(*given)
    assert evaluated["dynamics"] == (1 if kind == "mlp" else 2)
    torch._dynamo.reset()


def test_a_compiled_training_step_of_a_flow():
    """The whole step with its loss, compiled, gives the loss and the gradients of eager mode."""
    torch._dynamo.reset()
    torch.manual_seed(0)
    loss = EnergyLoss(matching=FlowMatching())
    dynamics = large(FlowDynamics(Z, A, E, hidden_dim=24, source=partial(NoiseSource, dim=3), loss=loss))
    z, action, embedding, noise = inputs(dynamics, 2, 7)
    logits = torch.randn(7, Z)
    target = LatentTarget(simnorm(logits), logits, z[0], 1, noise=noise, loss_noise=torch.randn(2, 7))
    results = []
    for function in (
        dynamics.predict_with_loss,
        torch.compile(dynamics.predict_with_loss, backend="eager", dynamic=False),
    ):
        dynamics.zero_grad()
        predicted, loss = function(z, action, embedding, target)
        (loss.sum() + predicted.square().sum()).backward()
        results.append([loss.detach(), *(p.grad.clone() for p in dynamics.parameters())])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs)
    torch._dynamo.reset()
