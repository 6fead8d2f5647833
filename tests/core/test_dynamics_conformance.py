"""What every kind of latent dynamics keeps to. A new kind is tested by adding a line to `FACTORIES`."""

from __future__ import annotations

import inspect
import itertools
from functools import partial

import pytest
import torch

from lit_pwm import models
from lit_pwm.errors import LitPWMError
from lit_pwm.flow import Dopri5, FixedStep
from lit_pwm.losses import WorldModelObjective
from lit_pwm.models import (
    Actor,
    Dynamics,
    EndPointError,
    FlowDynamics,
    FlowMatching,
    LatentSource,
    LatentTarget,
    MLPDynamics,
    RefinementDynamics,
    WorldModel,
)
from lit_pwm.models.component import factory_from
from lit_pwm.models.layers import simnorm

MATCHED = EndPointError(matching=FlowMatching())
FACTORIES = {
    "mlp": partial(MLPDynamics, hidden_dim=48),
    "mlp-plain-inputs": partial(MLPDynamics, hidden_dim=32, layers=1, rescale_inputs=False),
    "refinement": partial(RefinementDynamics, hidden_dim=48),
    "refinement-one-step-plain": partial(RefinementDynamics, hidden_dim=48, substeps=1, rescale_inputs=False),
    "flow": partial(FlowDynamics, hidden_dim=48),
    "flow-one-step": partial(FlowDynamics, hidden_dim=48, solver=FixedStep(substeps=1)),
    "flow-plain-inputs": partial(FlowDynamics, hidden_dim=48, rescale_inputs=False),
    "flow-velocity-matching": partial(FlowDynamics, hidden_dim=48, parametrisation="velocity", loss=MATCHED),
    "flow-velocity-heun": partial(FlowDynamics, hidden_dim=48, parametrisation="velocity", solver=FixedStep("heun")),
    "flow-velocity-rk4-latent-source": partial(
        FlowDynamics, hidden_dim=48, parametrisation="velocity", solver=FixedStep("rk4"), source=LatentSource
    ),
    "flow-midpoint": partial(FlowDynamics, hidden_dim=48, solver=FixedStep("midpoint")),
    "flow-residual": partial(FlowDynamics, hidden_dim=48, parametrisation="residual", loss=MATCHED),
    "flow-simplex-space": partial(FlowDynamics, hidden_dim=48, space="latent", source=LatentSource),
    "flow-dopri5": partial(FlowDynamics, hidden_dim=48, parametrisation="velocity", solver=Dopri5),
    "flow-adjoint": partial(
        FlowDynamics, hidden_dim=48, parametrisation="velocity", adjoint=True, loss=EndPointError(readout_weight=0.0)
    ),
}
Z, A, E = 32, 3, 5
TASKS = {"one": (6, 3), "two": (4, 2)}


@pytest.fixture(params=FACTORIES.values(), ids=FACTORIES.keys())
def factory(request):
    torch.manual_seed(0)
    return request.param


@pytest.fixture
def dynamics(factory) -> Dynamics:
    return factory(Z, A, E)


def inputs(*lead, seed=1):
    generator = torch.Generator().manual_seed(seed)
    z = simnorm(3 * torch.randn(*lead, Z, generator=generator))
    action = torch.rand(*lead, A, generator=generator) * 2 - 1
    return z, action, 0.3 * torch.randn(*lead, E, generator=generator)


def assert_on_simplex(z):
    groups = z.unflatten(-1, (-1, 8))
    assert (groups >= 0).all()
    torch.testing.assert_close(groups.sum(-1), torch.ones(groups.shape[:-1]), atol=1e-6, rtol=0)


def test_stays_on_the_simplex_for_sixteen_steps(dynamics):
    z, _, embedding = inputs(64)
    with torch.no_grad():
        for p in dynamics.parameters():
            p.mul_(3)  # far from the initialisation, where outputs are nearly uniform
        for step in range(16):
            z = dynamics(z, inputs(64, seed=step)[1], embedding)
            assert_on_simplex(z)
    assert z.std() > 1e-3


@pytest.mark.parametrize("lead", [(), (1,), (7,), (4, 7), (2, 3, 5)])
def test_leading_axes(dynamics, lead):
    z, action, embedding = inputs(*lead)
    out = dynamics(z, action, embedding)
    assert out.shape == (*lead, Z)
    assert out.dtype == torch.float32
    flat = dynamics(z.reshape(-1, Z), action.reshape(-1, A), embedding.reshape(-1, E))
    torch.testing.assert_close(out, flat.reshape(*lead, Z), atol=1e-6, rtol=0)


def test_gradient_reaches_latent_action_embedding_and_every_parameter(dynamics):
    z, action, embedding = (x.requires_grad_() for x in inputs(16))
    target = inputs(16, seed=2)[0]
    predicted, loss = dynamics.predict_with_loss(z, action, embedding, LatentTarget(target, target.log(), z.detach()))
    (loss.sum() + (predicted * torch.randn(16, Z)).sum()).backward()
    for name, tensor in [("z", z), ("action", action), ("embedding", embedding), *dynamics.named_parameters()]:
        assert tensor.grad is not None, name
        assert tensor.grad.isfinite().all(), name
        assert tensor.grad.abs().max() > 0, name


def test_depends_on_each_input(dynamics):
    z, action, embedding = inputs(16)
    other = inputs(16, seed=9)
    reference = dynamics(z, action, embedding)
    for changed in ((other[0], action, embedding), (z, other[1], embedding), (z, action, other[2])):
        assert (dynamics(*changed) - reference).abs().max() > 1e-5


def test_deterministic_and_without_side_effects(dynamics):
    before = {k: v.clone() for k, v in dynamics.state_dict().items()}
    z, action, embedding = inputs(16)
    first = dynamics(z, action, embedding)
    torch.manual_seed(123)
    torch.testing.assert_close(dynamics(z, action, embedding), first, rtol=0, atol=0)
    for key, value in dynamics.state_dict().items():
        torch.testing.assert_close(value, before[key], rtol=0, atol=0)


def test_description_and_weights_round_trip(dynamics):
    description = dynamics.description()
    assert description["init_args"].keys().isdisjoint({"latent_dim", "action_dim", "task_dim"})
    again = factory_from(description, Dynamics)(Z, A, E)
    assert type(again) is type(dynamics)
    assert again.description() == description
    assert list(again.state_dict()) == list(dynamics.state_dict())
    again.load_state_dict(dynamics.state_dict())
    torch.testing.assert_close(again(*inputs(8)), dynamics(*inputs(8)), rtol=0, atol=0)


def test_predict_with_loss_predicts_what_forward_does_and_is_least_at_its_own_prediction(dynamics):
    z, action, embedding = inputs(16)
    target = inputs(16, seed=2)[0]
    predicted, loss = dynamics.predict_with_loss(z, action, embedding, LatentTarget(target, target.log(), z.detach()))
    assert predicted.shape == (16, Z)
    assert loss.shape == (16,)
    torch.testing.assert_close(predicted, dynamics(z, action, embedding))
    with torch.no_grad():
        own = LatentTarget(predicted, predicted.log(), z.detach())
        assert (dynamics.predict_with_loss(z, action, embedding, own)[1] <= loss).all()


def test_under_bfloat16_autocast_predictions_are_latents_in_full_precision_near_those_without(dynamics):
    z, action, embedding = (x.requires_grad_() for x in inputs(16))
    target = LatentTarget(inputs(16, seed=2)[0], inputs(16, seed=2)[0].log(), z.detach())
    with torch.no_grad():
        expected, expected_loss = dynamics.eval().predict_with_loss(z, action, embedding, target)
    torch.manual_seed(0)
    with torch.autocast("cpu", torch.bfloat16):
        predicted, loss = dynamics.predict_with_loss(z, action, embedding, target)
        with torch.no_grad():
            assert_on_simplex(dynamics(z, action, embedding))
    assert predicted.dtype == loss.dtype == torch.float32
    assert_on_simplex(predicted)
    torch.testing.assert_close(predicted, expected, atol=0.02, rtol=0)
    if dynamics.loss_noise_shape is None:  # whose times are drawn
        torch.testing.assert_close(loss, expected_loss, atol=1e-3, rtol=0.05)
    (loss.sum() + (predicted * torch.randn(16, Z)).sum()).backward()
    for name, tensor in [("z", z), ("action", action), ("embedding", embedding), *dynamics.named_parameters()]:
        assert tensor.grad is not None, name
        assert tensor.grad.isfinite().all(), name


def test_descends_on_a_fixed_target(dynamics):
    z, action, embedding = inputs(32)
    target = LatentTarget(inputs(32, seed=2)[0], inputs(32, seed=2)[0].log(), inputs(32)[0])
    optimizer = torch.optim.Adam(dynamics.parameters(), lr=3e-3)
    losses = []
    for _ in range(60):
        loss = dynamics.predict_with_loss(z, action, embedding, target)[1].mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


def test_no_gradient_of_a_target_reaches_the_encoder(factory):
    model = WorldModel(TASKS, factory, latent_dim=Z, encoder_dim=16, reward_dim=16, task_dim=E)
    generator = torch.Generator().manual_seed(0)
    obs = torch.randn(4, 6, 6, generator=generator).requires_grad_()
    batch = {
        "obs": obs,
        "action": torch.rand(3, 6, 3, generator=generator),
        "reward": torch.rand(3, 6, generator=generator),
        "task": torch.arange(6) % 2,
    }
    WorldModelObjective()(model, batch)["total"].backward()
    assert obs.grad[0].abs().max() > 0
    assert obs.grad[1:].abs().max() == 0


def test_works_inside_a_world_model_that_is_described_and_rebuilt(factory):
    model = WorldModel(TASKS, factory, latent_dim=Z, encoder_dim=16, reward_dim=16, task_dim=E)
    again = WorldModel.from_description(model.description())
    assert again.description() == model.description()
    again.load_state_dict(model.state_dict())
    z = inputs(4)[0]
    actions, task = torch.rand(16, 4, 3), torch.tensor([0, 1, 0, 1])
    for ours, theirs in zip(again.rollout(z, actions, task), model.rollout(z, actions, task), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


def test_a_description_of_no_importable_dynamics_is_refused():
    for path, words in {
        "lit_pwm.models.dynamics.NoSuchThing": "NoSuchThing",
        "no_such_package.Thing": "no_such_package",
        "nodots": "nodots",
        "lit_pwm.models.actors.MLPActor": "no complete subclass",
    }.items():
        with pytest.raises(LitPWMError, match=words):
            factory_from({"class_path": path, "init_args": {}}, Dynamics)


def test_rescaled_mlp_sees_latents_centred_at_zero():
    plain, rescaled = (MLPDynamics(Z, A, E, hidden_dim=16, rescale_inputs=flag) for flag in (False, True))
    rescaled.load_state_dict(plain.state_dict())
    z, action, embedding = inputs(9)
    expected = plain(8 * z - 1, action, embedding)
    torch.testing.assert_close(rescaled(z, action, embedding), expected)
    assert (8 * z - 1).mean().abs() < 1e-6


@pytest.mark.parametrize("kind", [Dynamics, Actor], ids=lambda kind: kind.__name__)
def test_components_that_take_each_others_place_share_the_defaults_of_shared_options(kind):
    """A config's parser hands options that two classes share on when one takes the other's place, defaults too."""
    found = [value for value in vars(models).values() if inspect.isclass(value) and issubclass(value, kind)]
    for first, second in itertools.combinations(found, 2):
        ours, theirs = (inspect.signature(component).parameters for component in (first, second))
        for name in ours.keys() & theirs.keys():
            assert ours[name].default == theirs[name].default, (first, second, name)
