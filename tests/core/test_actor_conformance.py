"""What every kind of actor keeps to. A new kind is tested by adding a line to `FACTORIES`."""

from __future__ import annotations

import copy
from functools import partial

import pytest
import torch

from lit_pwm.flow import FixedStep
from lit_pwm.models import Actor, FlowActor, MLPActor
from lit_pwm.models.actors import LOG_STD_FLOOR, LOG_STD_INIT
from lit_pwm.models.component import factory_from
from lit_pwm.models.layers import constrain_, simnorm
from lit_pwm.models.noise import seed_noise

FACTORIES = {
    "mlp": partial(MLPActor, hidden_dims=(24, 16)),
    "mlp-tasks": partial(MLPActor, hidden_dims=(24,), task_dim=7),
    "flow": partial(FlowActor, hidden_dims=(24, 16)),
    "flow-tasks-gated": partial(FlowActor, hidden_dims=(24,), task_dim=7, form="gated"),
    "flow-heun": partial(FlowActor, hidden_dims=(24, 16), solver=FixedStep("heun", substeps=3)),
}
Z, A, N = 32, 4, 3
MASK = torch.tensor([[1.0, 1, 1, 1], [1, 0, 0, 0], [1, 1, 0, 0]])


@pytest.fixture(params=FACTORIES.values(), ids=FACTORIES.keys())
def factory(request):
    torch.manual_seed(0)
    return request.param


@pytest.fixture
def actor(factory) -> Actor:
    actor = factory(Z, A, N)
    actor.set_action_mask(MASK)
    return actor


def latents(batch=33, seed=1):
    return simnorm(3 * torch.randn(batch, Z, generator=torch.Generator().manual_seed(seed)))


TASK = torch.arange(33) % N


def test_range_shape_and_exact_zeros_where_masked(actor):
    for deterministic in (True, False):
        for scale in (1.0, 30.0):  # saturated, too
            with torch.no_grad():
                action = actor(latents(), TASK, deterministic, scale * torch.randn(33, A))
            assert action.shape == (33, A)
            assert action.abs().max() <= 1
            assert (action[MASK[TASK] == 0] == 0).all()
            assert (action[MASK[TASK] == 1] != 0).all()


def test_under_bfloat16_autocast_actions_are_near_those_without(actor):
    noise = torch.randn(33, A)
    expected = actor(latents(), TASK, noise=noise)
    with torch.autocast("cpu", torch.bfloat16):
        action = actor(latents(), TASK, noise=noise)
    assert action.dtype == torch.float32
    torch.testing.assert_close(action, expected, atol=0.03, rtol=0)
    action.sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in actor.parameters())


def test_deterministic_action_ignores_noise(actor):
    first = actor(latents(), TASK, deterministic=True)
    torch.testing.assert_close(actor(latents(), TASK, True, 5 * torch.randn(33, A)), first, rtol=0, atol=0)
    torch.testing.assert_close(actor(latents(), TASK, deterministic=True), first, rtol=0, atol=0)


def test_given_noise_is_used_and_drawn_noise_is_the_actors_own(actor):
    noise = torch.randn(33, A)
    first = actor(latents(), TASK, noise=noise)
    torch.testing.assert_close(actor(latents(), TASK, noise=noise), first, rtol=0, atol=0)
    assert (actor(latents(), TASK, noise=-noise) - first)[MASK[TASK] == 1].abs().min() > 0

    before = torch.get_rng_state()
    seed_noise(actor, 7)
    drawn = actor(latents(), TASK)
    copied = copy.deepcopy(actor)
    then = actor(latents(), TASK)
    torch.testing.assert_close(copied(latents(), TASK), then, rtol=0, atol=0)
    assert (then - drawn).abs().max() > 0
    seed_noise(actor, 7)
    torch.testing.assert_close(actor(latents(), TASK), drawn, rtol=0, atol=0)
    assert torch.equal(torch.get_rng_state(), before)


def test_noise_in_a_masked_dimension_changes_nothing(actor):
    noise = torch.randn(33, A)
    first = actor(latents(), TASK, noise=noise)
    other = torch.where(MASK[TASK] == 1, noise, torch.randn(33, A))
    torch.testing.assert_close(actor(latents(), TASK, noise=other), first, rtol=0, atol=0)


def test_gradient_flows_through_the_sample_to_latent_noise_and_every_parameter(actor):
    z, noise = latents().requires_grad_(), torch.randn(33, A).requires_grad_()
    (actor(z, TASK, noise=noise) * torch.randn(33, A)).sum().backward()
    for name, tensor in [("z", z), ("noise", noise), *actor.named_parameters()]:
        if tensor.numel():
            assert tensor.grad is not None, name
            assert tensor.grad.abs().max() > 0, name
    assert (noise.grad[MASK[TASK] == 0] == 0).all()


def test_forward_changes_no_weight_and_constrain_holds_the_floor_of_log_sigma(actor):
    parameters = {name: p for name, p in actor.named_parameters() if name.endswith("log_std.value")}
    assert parameters, "an actor of this project has a log standard deviation with PWM's start and floor"
    for p in parameters.values():
        torch.testing.assert_close(p.detach(), torch.full_like(p, LOG_STD_INIT))
        p.data.fill_(-5.0)
        p.data[..., 0] = 0.5
    before = {k: v.clone() for k, v in actor.state_dict().items()}
    actor(latents(), TASK)
    for key, value in actor.state_dict().items():
        torch.testing.assert_close(value, before[key], rtol=0, atol=0)
    constrain_(actor)
    for p in parameters.values():
        assert p.detach().min() == pytest.approx(LOG_STD_FLOOR)
        assert p.detach().max() == 0.5


def test_description_and_weights_round_trip(actor):
    description = actor.description()
    again = factory_from(description, Actor)(Z, A, N)
    assert again.description() == description
    again.load_state_dict(actor.state_dict())
    assert "action_mask" not in actor.state_dict()
    again.set_action_mask(MASK)  # which is the world model's to say, and does not travel with the weights
    noise = torch.randn(33, A)
    torch.testing.assert_close(again(latents(), TASK, noise=noise), actor(latents(), TASK, noise=noise))


def test_looks_at_the_task_only_if_it_has_a_task_width(actor):
    actor.set_action_mask(torch.ones(N, A))
    with torch.no_grad():
        actor.task_embedding.weight.mul_(20)
        first = actor(latents(), torch.zeros(33, dtype=torch.int64), deterministic=True)
        second = actor(latents(), torch.ones(33, dtype=torch.int64), deterministic=True)
    assert ((first - second).abs().max() > 1e-4) == (actor.init_args["task_dim"] > 0)
