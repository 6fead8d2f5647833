"""What is special to flow and refinement dynamics: their equations, losses, samples and refusals."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
import torch

from lit_pwm.errors import LitPWMError
from lit_pwm.flow import Dopri5, FixedStep
from lit_pwm.flow.integration import integrate_torchdiffeq
from lit_pwm.measures.compute import counting
from lit_pwm.models import (
    ChainedMatching,
    EndPointError,
    EnergyLoss,
    FlowDynamics,
    FlowMatching,
    GroupScore,
    LatentSource,
    LatentTarget,
    NoiseSource,
    RefinementDynamics,
    ZeroSource,
)
from lit_pwm.models.component import factory_from
from lit_pwm.models.conditioned_field import ConditionedField, centred
from lit_pwm.models.dynamics import Dynamics, consistency_error
from lit_pwm.models.flow_losses import FlowStep
from lit_pwm.models.latent_spaces import SPACES
from lit_pwm.models.layers import NormedLinear, simnorm
from lit_pwm.models.running_stats import RunningVariance

Z, A, E = 32, 3, 5


def inputs(batch=16, seed=1):
    generator = torch.Generator().manual_seed(seed)
    z = simnorm(2 * torch.randn(batch, Z, generator=generator))
    action = torch.rand(batch, A, generator=generator) * 2 - 1
    return z, action, 0.3 * torch.randn(batch, E, generator=generator)


def target_of(batch=16, seed=2):
    logits = 2 * torch.randn(batch, Z, generator=torch.Generator().manual_seed(seed))
    return LatentTarget(simnorm(logits), logits, inputs(batch, seed + 1)[0])


def large(dynamics):
    """Weights far from the initialisation, at which every output is nearly uniform."""
    with torch.no_grad():
        for p in dynamics.parameters():
            p.mul_(4)
    return dynamics


def test_the_field_is_normed_linear_layers_over_everything_concatenated():
    torch.manual_seed(0)
    field = ConditionedField(Z, 7, 24, layers=2, time_dim=4)
    x, c = torch.randn(6, Z), torch.randn(6, 7)
    first = NormedLinear(Z + 7 + 4, 24)
    with torch.no_grad():
        parts = field.from_state.weight, field.from_condition.weight, field.from_time.linear.weight
        first.weight.copy_(torch.cat(parts, 1))
        first.bias.copy_(field.from_condition.bias)
        field.head.weight.normal_()
        field.head.constrain_()
    pi = torch.pi
    time = torch.tensor([0.3 * pi, 0.6 * pi])
    features = torch.cat([time.sin(), time.cos()]).expand(6, 4)
    expected = field.head(field.hidden(first(torch.cat([x, c, features], 1))))
    torch.testing.assert_close(field(0.3, x, field.condition(c)), expected, atol=1e-6, rtol=1e-5)
    assert expected.unflatten(-1, (-1, 8)).mean(-1).abs().max() < 1e-5
    torch.testing.assert_close(field(0.3, None, field.condition(c)), field(0.3, 0 * x, field.condition(c)))


def test_one_euler_step_from_zero_is_an_mlp_of_the_condition():
    torch.manual_seed(0)
    dynamics = large(FlowDynamics(Z, A, E, hidden_dim=24, solver=FixedStep(substeps=1)))
    z, action, embedding = inputs()
    field = dynamics.field
    assert field.from_state is None
    expected = simnorm(field(0.0, None, field.condition(8 * z - 1, embedding, action)))
    torch.testing.assert_close(dynamics(z, action, embedding), expected)


def test_refinement_adds_full_steps_to_one_estimate():
    torch.manual_seed(0)
    dynamics = large(RefinementDynamics(Z, A, E, hidden_dim=24, substeps=3))
    z, action, embedding = inputs()
    x, condition = torch.zeros(16, Z), dynamics.field.condition(8 * z - 1, embedding, action)
    for _ in range(3):
        x = x + dynamics.field(0.0, 8 * simnorm(x) - 1, condition)
    torch.testing.assert_close(dynamics(z, action, embedding), simnorm(x), atol=1e-6, rtol=1e-5)
    with counting({"dynamics": dynamics}) as evaluated:
        dynamics(z, action, embedding)
    assert evaluated == {"dynamics": 3}


def test_the_residual_flow_of_two_euler_steps_is_the_refinement():
    """With a time embedding that says nothing, the states are the same; this is where the two families meet."""
    torch.manual_seed(0)
    refinement = large(RefinementDynamics(Z, A, E, hidden_dim=24))
    flow = FlowDynamics(Z, A, E, hidden_dim=24, parametrisation="residual")
    flow.field.load_state_dict(refinement.field.state_dict(), strict=False)
    torch.nn.init.zeros_(flow.field.from_time.linear.weight)
    results = [dynamics.predict_with_loss(*inputs(), target_of()) for dynamics in (flow, refinement)]
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-5)


def test_the_refinement_loss_regresses_the_earlier_read_outs_too():
    torch.manual_seed(0)
    target = target_of()
    for substeps, weight in ((1, 0.5), (2, 0.0), (3, 0.5)):
        dynamics = large(RefinementDynamics(Z, A, E, hidden_dim=24, substeps=substeps, readout_weight=weight))
        *earlier, last = dynamics.read_outs(*inputs())
        expected = consistency_error(last, target.latent)
        if earlier:
            expected = expected + weight * torch.stack([consistency_error(r, target.latent) for r in earlier]).mean(0)
        torch.testing.assert_close(dynamics.predict_with_loss(*inputs(), target)[1], expected)


def test_the_end_point_flow_by_hand():
    """Euler, K = 2: x₁ = x̂₀ / 2, x₂ = x̂₁; the loss takes S(x̂₁) and half of S(x̂₀)."""
    torch.manual_seed(0)
    dynamics = large(FlowDynamics(Z, A, E, hidden_dim=24))
    z, action, embedding = inputs()
    condition = dynamics.field.condition(8 * z - 1, embedding, action)
    first = dynamics.field(0.0, None, condition)
    second = dynamics.field(0.5, 8 * simnorm(first / 2) - 1, condition)
    target = target_of()
    predicted, loss = dynamics.predict_with_loss(z, action, embedding, target)
    torch.testing.assert_close(predicted, simnorm(second), atol=1e-6, rtol=1e-5)
    expected = consistency_error(simnorm(second), target.latent)
    expected = expected + 0.5 * consistency_error(simnorm(first), target.latent)
    torch.testing.assert_close(loss, expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("space", ["logit", "latent"])
@pytest.mark.parametrize("source", [ZeroSource, LatentSource])
def test_flow_matching_is_zero_for_the_velocity_of_the_straight_path(source, space, monkeypatch):
    torch.manual_seed(0)
    dynamics = FlowDynamics(
        Z, A, E, hidden_dim=8, parametrisation="velocity", source=source, space=space, loss=FlowMatching()
    )
    z, action, embedding = inputs()
    target = target_of()
    begin = dynamics.start(z, None)
    straight = dynamics.space.of_target(target) - begin
    monkeypatch.setattr(dynamics.field, "velocity", lambda tau, x, context: straight)
    predicted, loss = dynamics.predict_with_loss(z, action, embedding, target)
    assert loss.abs().max() < 1e-9
    torch.testing.assert_close(predicted, target.latent, atol=1e-5, rtol=1e-4)
    monkeypatch.setattr(dynamics.field, "velocity", lambda tau, x, context: straight + 1)
    ratio = dynamics.latent_variance.value / dynamics.state_variance.value
    torch.testing.assert_close(dynamics.predict_with_loss(z, action, embedding, target)[1], ratio.expand(16))


def test_the_weight_is_a_ratio_of_relative_errors():
    """Scaling the logits leaves the flow-matching term of a field that is off by a fixed fraction as it is."""
    dynamics = FlowDynamics(Z, A, E, hidden_dim=8, parametrisation="velocity", loss=FlowMatching())
    target = target_of(batch=512)
    dynamics.predict_with_loss(*inputs(512), target)
    expected = target.latent.var(0, unbiased=False).mean() / centred(target.logits).var(0, unbiased=False).mean()
    torch.testing.assert_close(dynamics.latent_variance.value / dynamics.state_variance.value, expected)
    before = dynamics.state_dict()["state_variance.value"].clone()
    dynamics.eval()
    dynamics.predict_with_loss(*inputs(512), target_of(512, seed=9))
    torch.testing.assert_close(dynamics.state_variance.value, before, rtol=0, atol=0)


@pytest.mark.parametrize(
    "loss", [FlowMatching(), FlowMatching(starts="teacher_forced"), ChainedMatching()], ids=lambda loss: str(loss)[:60]
)
@pytest.mark.parametrize("source", [ZeroSource, LatentSource, NoiseSource])
def test_stop_gradients(source, loss):
    """No gradient reaches a target or the encoder's own start; flow matching moves no source."""
    torch.manual_seed(0)
    dynamics = large(FlowDynamics(Z, A, E, hidden_dim=16, source=source, parametrisation="velocity", loss=loss))
    z, action, embedding = inputs()
    z.requires_grad_()
    target = target_of()
    tensors = [x.requires_grad_() for x in (target.latent, target.logits, target.current)]
    dynamics.predict_with_loss(z, action, embedding, target)[1].sum().backward()
    assert all(x.grad is None or x.grad.abs().max() == 0 for x in tensors)
    if getattr(loss, "starts", "rolled_out") == "teacher_forced":
        assert z.grad is None or z.grad.abs().max() == 0
    else:  # through the condition alone: the source is detached
        again = z.detach().requires_grad_()
        condition = dynamics.condition(again, action, embedding)
        start = dynamics.start(again, dynamics.noise_for(again, None)).detach()
        dynamics.match(FlowStep(again, action, embedding, condition, start, target), "uniform")[0].sum().backward()
        assert again.grad.abs().max() > 0


def test_a_noise_source_gives_samples_of_the_noise_that_it_is_given():
    torch.manual_seed(0)
    dynamics = large(FlowDynamics(Z, A, E, hidden_dim=24, source=NoiseSource, loss=ChainedMatching()))
    draws = [dynamics(*inputs(), torch.randn(16, Z, generator=torch.Generator().manual_seed(k))) for k in (0, 0, 1)]
    torch.testing.assert_close(draws[0], draws[1], rtol=0, atol=0)
    assert (draws[0] - draws[2]).abs().max() > 1e-3
    z = inputs()[0]
    for _ in range(16):
        z = dynamics(z, *inputs()[1:])
        torch.testing.assert_close(z.unflatten(-1, (-1, 8)).sum(-1), torch.ones(16, Z // 8), atol=1e-6, rtol=0)
    again = factory_from(dynamics.description(), Dynamics)(Z, A, E)
    assert again.description() == dynamics.description()
    # Reparameterised: gradients flow through a sample to the action.
    action = inputs()[1].requires_grad_()
    dynamics(inputs()[0], action, inputs()[2]).square().sum().backward()
    assert action.grad.abs().max() > 0


def test_noise_of_few_dimensions_spans_so_many_directions_and_has_unit_variance():
    dynamics = FlowDynamics(Z, A, E, hidden_dim=8, source=partial(NoiseSource, dim=3))
    assert dynamics.noise_shape == (3,)
    noise = dynamics.start.shaped(torch.randn(4000, 3, generator=torch.Generator().manual_seed(0)))
    assert torch.linalg.matrix_rank(noise) == 3
    assert noise.var(0).mean().item() == pytest.approx(1, abs=0.05)
    again = factory_from(dynamics.description(), Dynamics)(Z, A, E)
    torch.testing.assert_close(again.start.directions, dynamics.start.directions, rtol=0, atol=0)


def test_flow_matching_learns_two_outcomes_where_a_mean_would_lie_between():
    torch.manual_seed(0)
    dynamics = FlowDynamics(
        8, 1, 1, hidden_dim=64, source=NoiseSource, loss=ChainedMatching(), solver=FixedStep(substeps=8)
    )
    condition = simnorm(torch.zeros(256, 8)), torch.zeros(256, 1), torch.zeros(256, 1)
    up = centred(torch.tensor([3.0, 0, 0, 0, 0, 0, 0, -3]))
    optimizer = torch.optim.Adam(dynamics.parameters(), lr=3e-3)
    for _ in range(400):
        logits = up * (torch.rand(256, 1).round() * 2 - 1)
        loss = dynamics.predict_with_loss(*condition, LatentTarget(simnorm(logits), logits, condition[0]))[1].mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        first = dynamics(*condition)[:, 0]
    ends = simnorm(up)[0], simnorm(-up)[0]
    near = [((first - end).abs() < 0.2).float().mean().item() for end in ends]
    assert sum(near) > 0.8
    assert min(near) > 0.25


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (lambda: {"space": "logits"}, "'logit'"),
        (lambda: {"source": 3}, "source 3, where a Source is expected"),
        (lambda: {"parametrisation": "velocty"}, "'velocity'"),
        (lambda: {"solver": FixedStep("heun")}, "no velocity at τ = 1"),
        (lambda: {"solver": Dopri5}, "no velocity at τ = 1"),
        (lambda: {"solver": EndPointError}, "solver .*EndPointError.*, where a Solver is expected"),
        (lambda: {"adjoint": True}, "no velocity at τ = 1, which the adjoint"),
        (lambda: {"adjoint": True, "parametrisation": "velocity"}, "Set readout_weight to 0"),
        (lambda: {"parametrisation": "residual", "source": NoiseSource}, "zero source"),
        (lambda: {"loss": EndPointError(weight=0)}, "EndPointError has weight 0"),
        (lambda: {"loss": FlowMatching(weight=0)}, "FlowMatching has weight 0"),
        (lambda: {"loss": EndPointError(matching=GroupScore())}, "matching GroupScore"),
        (lambda: {"solver": FixedStep(substeps=0)}, "substeps 0"),
        (lambda: {"source": partial(NoiseSource, dim=33)}, "dim 33"),
        (lambda: {"source": partial(NoiseSource, power=0.0)}, "power 0"),
        (lambda: {"loss": EnergyLoss}, "EnergyLoss, which compares samples.*NoiseSource"),
        (lambda: {"loss": EnergyLoss(samples=1)}, "samples 1"),
        (lambda: {"loss": EnergyLoss(groups=GroupScore(exponent=2.0))}, "exponent 2"),
        (lambda: {"loss": EnergyLoss(groups=GroupScore(exponent=0.0))}, "exponent 0"),
    ],
)
def test_options_that_cannot_be(options, words):
    with pytest.raises(LitPWMError, match=words):
        FlowDynamics(Z, A, E, **options())


@pytest.mark.parametrize("solver", [FixedStep("rk4", 40), Dopri5(1e-9, 1e-9)], ids=str)
def test_the_adjoint_gives_the_gradients_of_the_plain_solver(solver):
    """Of the dynamics' own loss, flow matching beside it, to all that it depends on."""
    loss, gradients = EndPointError(readout_weight=0.0, matching=FlowMatching()), []
    times = torch.randn(16, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    for adjoint in (False, True):
        torch.manual_seed(0)
        options = {"parametrisation": "velocity", "source": LatentSource, "solver": solver, "loss": loss}
        dynamics = large(FlowDynamics(Z, A, E, hidden_dim=24, adjoint=adjoint, **options)).double()
        given = [x.double().requires_grad_() for x in inputs()]
        target = target_of()
        target = LatentTarget(target.latent.double(), target.logits.double(), target.current.double(), loss_noise=times)
        predicted, error = dynamics.predict_with_loss(*given, target)
        total = error.sum() + (predicted * torch.linspace(-1, 1, Z, dtype=torch.float64)).sum()
        gradients.append(torch.autograd.grad(total, [*given, *dynamics.parameters()]))
    assert all(gradient.abs().max() > 0 for gradient in gradients[0])
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


def test_a_validation_of_chained_estimates_does_not_roll_out_what_it_sees_of_the_target():
    torch.manual_seed(0)
    dynamics = large(FlowDynamics(Z, A, E, hidden_dim=24, loss=ChainedMatching(end_weight=1.0)))
    rolled = [dynamics.predict_with_loss(*inputs(), target_of(seed=seed))[0] for seed in (2, 3)]
    assert (rolled[0] - rolled[1]).abs().max() > 1e-3, "in training the estimate lies on the path to the target"
    dynamics.eval()
    for seed in (2, 3):
        predicted, loss = dynamics.predict_with_loss(*inputs(), target_of(seed=seed))
        torch.testing.assert_close(predicted, dynamics(*inputs()), rtol=0, atol=0)
        assert loss.isfinite().all()


@pytest.mark.parametrize("loss", [FlowMatching(), ChainedMatching(), EndPointError(matching=FlowMatching())], ids=str)
def test_one_step_from_zero_sees_states_where_flow_matching_shows_them(loss):
    assert FlowDynamics(Z, A, E, hidden_dim=8, solver=FixedStep(substeps=1), loss=loss).field.from_state is not None


def test_what_is_drawn_is_declared_and_handed_in():
    """With the same noise two calls agree, whatever the generators are at; without, they are the dynamics' own."""
    loss = EnergyLoss(matching=FlowMatching())
    dynamics = large(FlowDynamics(Z, A, E, hidden_dim=24, source=partial(NoiseSource, dim=3), loss=loss))
    assert (dynamics.noise_shape, dynamics.loss_noise_shape, dynamics.samples) == ((3,), (), 2)
    generator = torch.Generator().manual_seed(1)
    noise, times = torch.randn(2, 16, 3, generator=generator), torch.randn(2, 16, generator=generator)
    given, target = [x.expand(2, *x.shape) for x in inputs()], target_of()
    before = torch.get_rng_state()
    results = [
        dynamics.predict_with_loss(*given, replace(target, step=1, noise=noise, loss_noise=times)) for _ in range(2)
    ]
    own = [dynamics.predict_with_loss(*given, replace(target, step=1)) for _ in range(2)]
    assert torch.equal(torch.get_rng_state(), before)
    for first, second in zip(*results, strict=True):
        assert torch.equal(first, second)
    assert not torch.equal(own[0][0], own[1][0])
    plain = FlowDynamics(Z, A, E, hidden_dim=24)
    assert (plain.noise_shape, plain.loss_noise_shape, plain.samples) == (None, None, 1)


@pytest.mark.parametrize(("power", "kurtosis"), [(1.0, 3.0), (2.0, 35 / 3), (3.0, 46.2)])
def test_noise_of_any_power_has_unit_variance_and_its_own_tails(power, kurtosis):
    generator, space = torch.Generator().manual_seed(0), SPACES["logit"]
    noise = NoiseSource(Z, space, power=power).shaped(torch.randn(200_000, Z, generator=generator))
    assert noise.mean().item() == pytest.approx(0, abs=0.003)
    assert noise.var().item() == pytest.approx(1, rel=0.01)
    assert noise.pow(4).mean().item() == pytest.approx(kurtosis, rel=0.1)  # E ε^4p / (E ε^2p)²
    few = NoiseSource(Z, space, power=power, dim=4).shaped(torch.randn(50_000, 4, generator=generator))
    assert few.var(0).mean().item() == pytest.approx(1, rel=0.05)
    assert torch.linalg.matrix_rank(few[:100]).item() == 4


def test_refinement_without_steps_is_refused():
    with pytest.raises(LitPWMError, match="substeps 0"):
        RefinementDynamics(Z, A, E, substeps=0)


def test_running_variance_starts_at_the_first_batch_and_follows():
    stats = RunningVariance(rate=0.25)
    x = torch.randn(64, 3)
    stats.update(x)
    torch.testing.assert_close(stats.value, x.var(0, unbiased=False).mean())
    stats.update(3 * x)
    expected = (0.75 + 0.25 * 9) * x.var(0, unbiased=False).mean()
    torch.testing.assert_close(stats.value, expected)


def test_a_flow_that_was_used_in_inference_mode_first_can_be_trained():
    dynamics = FlowDynamics(16, 2, 4, hidden_dim=8)
    inputs = torch.full((3, 16), 1 / 8), torch.zeros(3, 2), torch.zeros(3, 4)
    with torch.inference_mode():
        dynamics(*inputs)
    dynamics(*inputs).square().sum().backward()
    assert dynamics.field.from_time.linear.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("substeps", [1, 2, 5])
@pytest.mark.parametrize("options", [
    {}, {"parametrisation": "velocity"}, {"parametrisation": "residual"}, {"source": LatentSource},
    {"source": NoiseSource}, {"space": "latent"},
    {"space": "latent", "source": LatentSource, "parametrisation": "velocity"},
], ids=str)  # fmt: skip
def test_eulers_steps_are_torchdiffeqs(options, substeps):
    dynamics = large(FlowDynamics(Z, A, E, hidden_dim=24, solver=FixedStep(substeps=substeps), **options))
    z, action, embedding = inputs(6)
    noise = None if dynamics.noise_shape is None else torch.randn(6, *dynamics.noise_shape)
    ours = dynamics(z, action, embedding, noise)
    start, condition = dynamics.start(z, noise), dynamics.condition(z, action, embedding)
    space, kind = dynamics.space, dynamics.parametrisation

    def velocity(tau, x):
        return kind.velocity(dynamics.evaluate(float(tau), x, condition), x, float(tau), space)

    theirs = space.read_out(integrate_torchdiffeq(velocity, start, dynamics.solver))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)
    assert (ours - z).abs().max() > 1e-3


def test_corrections_are_summed_in_full_precision_under_autocast():
    errors = []
    for seed in range(4):
        torch.manual_seed(seed)
        dynamics = RefinementDynamics(Z, A, E, hidden_dim=48, substeps=64)
        z, action, embedding = inputs(64)
        with torch.no_grad():
            expected = dynamics(z, action, embedding)
            with torch.autocast("cpu", torch.bfloat16):
                errors.append((dynamics(z, action, embedding) - expected).abs().mean())
    assert max(errors) < 2e-3  # 3e-3 to 6e-3 where the sum is in bfloat16, which loses small terms of it
