"""What is special to the flow actor: its map, its density and its gate."""

from __future__ import annotations

from functools import partial
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy import stats

from lit_pwm.errors import LitPWMError
from lit_pwm.flow import FixedStep
from lit_pwm.models import FlowActor, MLPActor
from lit_pwm.models.actors import LOG_STD_FLOOR, LOG_STD_INIT

KINDS = {
    "euler": partial(FlowActor),
    "euler-gated": partial(FlowActor, form="gated"),
    "heun-gated": partial(FlowActor, solver=FixedStep("heun"), form="gated"),
    "rk4": partial(FlowActor, solver=FixedStep("rk4", substeps=1)),
}


def strong(actor):
    """A map that bends, by larger weights than at the initialisation, but not so much that it folds."""
    with torch.no_grad():
        for p in actor.field.parameters():
            p.mul_(1.2)
    return actor


@pytest.fixture(params=KINDS.values(), ids=KINDS.keys())
def make(request):
    torch.manual_seed(0)
    return lambda action_dim, **options: strong(request.param(16, action_dim, 2, hidden_dims=(24, 16), **options))


def test_the_map_by_hand():
    torch.manual_seed(0)
    actor = FlowActor(16, 3, 2, hidden_dims=(24, 16), task_dim=4)
    z, task, noise = torch.randn(5, 16), torch.tensor([0, 1, 1, 0, 1]), torch.randn(5, 3)
    condition = actor.field.condition(z, actor.task_embedding(task))
    x = np.exp(LOG_STD_INIT) * noise
    x = x + 0.5 * actor.field(0.0, x, condition)
    x = x + 0.5 * actor.field(0.5, x, condition)
    torch.testing.assert_close(actor(z, task, noise=noise), x.tanh())
    assert actor.log_std.value.tolist() == MLPActor(16, 3, 2).log_std.value.tolist() == [LOG_STD_INIT] * 3
    assert actor.log_std.floor == MLPActor(16, 3, 2).log_std.floor == LOG_STD_FLOOR
    zero = actor(z, task, noise=torch.zeros(5, 3))
    torch.testing.assert_close(actor(z, task, deterministic=True), zero, rtol=0, atol=0)


def image_sizes(nodes: np.ndarray) -> np.ndarray:
    """Length of each image of a grid's interval, or area of each image of a grid's cell: geometry, no determinant."""
    if nodes.shape[-1] == 1:
        return np.abs(np.diff(nodes[:, 0]))
    corners = [nodes[:-1, :-1], nodes[1:, :-1], nodes[1:, 1:], nodes[:-1, 1:]]
    twice = sum(p[..., 0] * q[..., 1] - q[..., 0] * p[..., 1] for p, q in pairwise([*corners, corners[0]]))
    return np.abs(twice) / 2


@pytest.mark.parametrize("dims", [1, 2])
def test_log_density_agrees_with_a_numerically_integrated_one(make, dims):
    """On a fine grid of noise, ∫ p(a) da over a cell's image is the noise's mass in the cell; together one."""
    actor = make(dims).double()
    z = torch.randn(1, 16, dtype=torch.float64)
    line = torch.linspace(-5, 5, 2001 if dims == 1 else 301, dtype=torch.float64)
    centres = (line[1:] + line[:-1]) / 2

    def grid(points):
        return torch.stack(torch.meshgrid(*[points] * dims, indexing="ij"), -1)

    def at(points):
        flat = points.reshape(-1, dims)
        return z.expand(len(flat), -1), torch.zeros(len(flat), dtype=torch.int64), flat

    with torch.no_grad():
        z_nodes, task, flat = at(grid(line))
        nodes = actor(z_nodes, task, noise=flat).reshape(*[len(line)] * dims, dims)
    actions, log_prob = actor.log_prob(*at(grid(centres)))
    z_centres, task, flat = at(grid(centres))
    torch.testing.assert_close(actions, actor(z_centres, task, noise=flat).detach())

    mass = log_prob.exp().numpy() * image_sizes(nodes.numpy()).ravel()
    expected = stats.multivariate_normal(np.zeros(dims)).pdf(flat.numpy()) * (line[1] - line[0]).item() ** dims
    assert mass.sum() == pytest.approx(1, abs=0.005)
    bulk = (flat.abs() < 2.5).all(1).numpy()
    np.testing.assert_allclose(mass[bulk], expected[bulk], rtol=0.02)


def test_density_ignores_padded_dimensions(make):
    """The density of a task with one action dimension is that of its own one-dimensional action."""
    actor = make(3).double()
    actor.set_action_mask(torch.tensor([[1.0, 0, 0], [1, 1, 1]]))
    z, task = torch.randn(6, 16, dtype=torch.float64), torch.zeros(6, dtype=torch.int64)
    noise = torch.randn(6, 3, dtype=torch.float64)
    actions, log_prob = actor.log_prob(z, task, noise)
    assert (actions[:, 1:] == 0).all()
    other = noise.clone()
    other[:, 1:] = torch.randn(6, 2, dtype=torch.float64)
    torch.testing.assert_close(actor.log_prob(z, task, other), (actions, log_prob), rtol=0, atol=0)
    # p(a) da = N(ε) dε along the one dimension.
    step = torch.zeros_like(noise)
    step[:, 0] = 1e-6
    slope = (actor(z, task, noise=noise + step) - actor(z, task, noise=noise - step))[:, 0].detach() / 2e-6
    expected = -0.5 * noise[:, 0].square() - 0.5 * np.log(2 * np.pi) - slope.abs().log()
    torch.testing.assert_close(log_prob, expected, atol=1e-5, rtol=1e-5)


def test_density_is_differentiable_on_request(make):
    actor = make(2)
    z = torch.randn(4, 16)
    _, log_prob = actor.log_prob(z, torch.zeros(4, dtype=torch.int64), torch.randn(4, 2), create_graph=True)
    log_prob.sum().backward()
    assert all(p.grad is not None for name, p in actor.named_parameters() if "task_embedding" not in name)
    _, log_prob = actor.log_prob(z, torch.zeros(4, dtype=torch.int64), torch.randn(4, 2))
    assert not log_prob.requires_grad


def test_a_gate_that_is_open_contracts_to_the_goal_and_one_that_is_shut_changes_nothing():
    actor = FlowActor(16, 2, 1, hidden_dims=(8,), solver=FixedStep(substeps=4), form="gated")
    torch.nn.init.zeros_(actor.field.head.weight)
    z, task, noise = torch.randn(5, 16), torch.zeros(5, dtype=torch.int64), torch.randn(5, 2)
    goal = torch.tensor([0.3, -0.6])
    for gate, expected in (
        (-50.0, (np.exp(LOG_STD_INIT) * noise).tanh()),
        (50.0, (goal + (np.exp(LOG_STD_INIT) * noise - goal) * 0.75**4).tanh()),
    ):
        with torch.no_grad():
            actor.field.head.bias.copy_(torch.cat([torch.full((2,), gate), goal]))
        torch.testing.assert_close(actor(z, task, noise=noise), expected)


def test_a_plain_velocity_passes_the_noise_on_whole():
    """With a velocity that does not see the state, the action is distributed as an MLP actor's."""
    actor = FlowActor(16, 2, 1, hidden_dims=(8,))
    torch.nn.init.zeros_(actor.field.head.weight)
    z, task, noise = torch.randn(5, 16), torch.zeros(5, dtype=torch.int64), torch.randn(5, 2)
    expected = (actor.field.head.bias + np.exp(LOG_STD_INIT) * noise).tanh()
    torch.testing.assert_close(actor(z, task, noise=noise), expected)


def test_unknown_forms_are_refused():
    with pytest.raises(LitPWMError, match="'gated'"):
        FlowActor(16, 2, 1, form="gate")


def test_the_trunk_weighs_as_much_in_the_last_layer_as_if_all_inputs_were_one():
    """A state of two entries, by a fan-in of its own, would be shown four times as large as a trunk of 100 features."""
    torch.manual_seed(0)
    field = FlowActor(128, 2, 1, hidden_dims=(100, 400)).field
    joint = torch.nn.Linear(2 + 8 + 100, 400)
    for part in (field.from_state_and_time.weight, field.from_condition.weight):
        assert part.std().item() == pytest.approx(joint.weight.std().item(), rel=0.05)
        assert part.abs().max() <= joint.weight.abs().max() * 1.001


def test_the_velocity_is_that_of_one_layer_over_state_time_and_trunk():
    torch.manual_seed(0)
    actor = FlowActor(16, 3, 2, hidden_dims=(24, 20), task_dim=4)
    field, x, z, task = actor.field, torch.randn(5, 3), torch.randn(5, 16), torch.tensor([0, 1, 1, 0, 1])
    embedding = actor.task_embedding(task)
    features = torch.cat([x, field.time(0.3, x).expand(5, -1), field.trunk(torch.cat([z, embedding], 1))], 1)
    weight = torch.cat([field.from_state_and_time.weight, field.from_condition.weight], 1)
    hidden = field.ln(torch.nn.functional.mish(features @ weight.T + field.from_condition.bias))
    context = field.condition(z, embedding)
    torch.testing.assert_close(field(0.3, x, context), field.head(hidden))
    torch.testing.assert_close(field(torch.full((5,), 0.3), x, context), field.head(hidden))
    torch.testing.assert_close(field(0.3, None, context), field(0.3, torch.zeros(5, 3), context))


@pytest.mark.parametrize("hidden_dims", [(32,), (32, 24, 16)])
def test_any_number_of_hidden_layers(hidden_dims):
    actor = FlowActor(16, 2, 1, hidden_dims=hidden_dims)
    assert actor(torch.randn(4, 16), torch.zeros(4, dtype=torch.int64)).shape == (4, 2)


def test_the_density_in_inference_mode_is_that_outside(make):
    """Lightning validates in inference mode, whose tensors no backward pass may see."""
    actor = make(2)
    actor.set_action_mask(torch.tensor([[1.0, 1.0], [1.0, 0.0]]))
    z, task, noise = torch.randn(6, 16), torch.tensor([0, 1, 0, 1, 0, 1]), torch.randn(6, 2)
    expected = actor.log_prob(z, task, noise)
    with torch.inference_mode():
        found = actor.log_prob(z.clone(), task.clone(), noise.clone())
        after = found[1] + 1
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    assert not after.requires_grad
    with torch.no_grad():
        torch.testing.assert_close(actor.log_prob(z, task, noise), expected, rtol=0, atol=0)


def test_any_leading_axes(make):
    actor = make(2)
    z, task, noise = torch.randn(3, 4, 16), torch.tensor([0, 1, 0, 1]), torch.randn(3, 4, 2)
    flat = z.flatten(0, 1), task.expand(3, 4).flatten(), noise.flatten(0, 1)
    torch.testing.assert_close(actor(z, task, noise=noise).flatten(0, 1), actor(*flat[:2], noise=flat[2]))
    for ours, theirs in zip(actor.log_prob(z, task, noise), actor.log_prob(*flat), strict=True):
        torch.testing.assert_close(ours.flatten(0, 1), theirs)
