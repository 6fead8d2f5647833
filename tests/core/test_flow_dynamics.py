"""What is special to flow and refinement dynamics: their equations, losses, samples and refusals."""

from __future__ import annotations

import pytest
import torch

from lit_pwm.errors import LitPWMError
from lit_pwm.flow.integration import integrate_torchdiffeq
from lit_pwm.models import FlowDynamics, LatentTarget, RefinementDynamics
from lit_pwm.models.component import factory_from
from lit_pwm.models.conditioned_field import ConditionedField, centred
from lit_pwm.models.dynamics import Dynamics, consistency_error
from lit_pwm.models.latent_spaces import SPACES
from lit_pwm.models.layers import NormedLinear, simnorm
from lit_pwm.models.parametrisations import PARAMETRISATIONS
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
    assert field.nfe == 3


def test_one_euler_step_from_zero_is_an_mlp_of_the_condition():
    torch.manual_seed(0)
    dynamics = large(FlowDynamics(Z, A, E, hidden_dim=24, substeps=1))
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
    nfe = dynamics.field.nfe
    dynamics(z, action, embedding)
    assert dynamics.field.nfe == nfe + 3


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
@pytest.mark.parametrize("source", ["zero", "latent"])
def test_flow_matching_is_zero_for_the_velocity_of_the_straight_path(source, space, monkeypatch):
    torch.manual_seed(0)
    dynamics = FlowDynamics(
        Z, A, E, hidden_dim=8, parametrisation="velocity", source=source, space=space, end_weight=0, flow_weight=1
    )
    z, action, embedding = inputs()
    target = target_of()
    space_of = dynamics._space
    begin = dynamics.start(z)
    straight = space_of.of_target(target) - begin
    monkeypatch.setattr(dynamics.field, "velocity", lambda tau, x, context: straight)
    predicted, loss = dynamics.predict_with_loss(z, action, embedding, target)
    assert loss.abs().max() < 1e-9
    torch.testing.assert_close(predicted, target.latent, atol=1e-5, rtol=1e-4)
    monkeypatch.setattr(dynamics.field, "velocity", lambda tau, x, context: straight + 1)
    ratio = dynamics.latent_variance.value / dynamics.state_variance.value
    torch.testing.assert_close(dynamics.predict_with_loss(z, action, embedding, target)[1], ratio.expand(16))


def test_the_weight_is_a_ratio_of_relative_errors():
    """Scaling the logits leaves the flow-matching term of a field that is off by a fixed fraction as it is."""
    dynamics = FlowDynamics(Z, A, E, hidden_dim=8, parametrisation="velocity", end_weight=0, flow_weight=1)
    target = target_of(batch=512)
    dynamics.predict_with_loss(*inputs(512), target)
    expected = target.latent.var(0, unbiased=False).mean() / centred(target.logits).var(0, unbiased=False).mean()
    torch.testing.assert_close(dynamics.latent_variance.value / dynamics.state_variance.value, expected)
    before = dynamics.state_dict()["state_variance.value"].clone()
    dynamics.eval()
    dynamics.predict_with_loss(*inputs(512), target_of(512, seed=9))
    torch.testing.assert_close(dynamics.state_variance.value, before, rtol=0, atol=0)


@pytest.mark.parametrize("rollout", ["solver", "estimate"])
@pytest.mark.parametrize("starts", ["rolled_out", "teacher_forced"])
@pytest.mark.parametrize("source", ["zero", "latent", "noise"])
def test_stop_gradients(source, starts, rollout):
    """No gradient reaches a target or the encoder's own start; flow matching moves no source."""
    torch.manual_seed(0)
    dynamics = large(
        FlowDynamics(
            Z, A, E, hidden_dim=16, source=source, starts=starts, rollout=rollout, end_weight=0, readout_weight=0,
            flow_weight=1, parametrisation="velocity",
        )
    )  # fmt: skip
    z, action, embedding = inputs()
    z.requires_grad_()
    target = target_of()
    tensors = [x.requires_grad_() for x in (target.latent, target.logits, target.current)]
    dynamics.predict_with_loss(z, action, embedding, target)[1].sum().backward()
    assert all(x.grad is None or x.grad.abs().max() == 0 for x in tensors)
    if starts == "teacher_forced":
        assert z.grad is None or z.grad.abs().max() == 0
    else:  # through the condition alone: the source is detached
        again = z.detach().requires_grad_()
        condition = dynamics.field.condition(8 * again - 1, embedding, action)
        torch.manual_seed(1)
        start = dynamics.start(again).detach()
        dynamics._match(again, action, embedding, condition, start, target)[0].sum().backward()
        assert again.grad.abs().max() > 0


def test_a_noise_source_gives_samples_that_the_global_seed_repeats():
    torch.manual_seed(0)
    options = {"source": "noise", "rollout": "estimate", "end_weight": 0, "flow_weight": 1}
    dynamics = large(FlowDynamics(Z, A, E, hidden_dim=24, **options))
    draws = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        draws.append(dynamics(*inputs()))
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
    dynamics = FlowDynamics(Z, A, E, hidden_dim=8, source="noise", noise_dim=3)
    torch.manual_seed(0)
    noise = dynamics.start.noise(torch.zeros(4000, Z))
    assert torch.linalg.matrix_rank(noise) == 3
    assert noise.var(0).mean().item() == pytest.approx(1, abs=0.05)
    again = factory_from(dynamics.description(), Dynamics)(Z, A, E)
    torch.testing.assert_close(again.start.directions, dynamics.start.directions, rtol=0, atol=0)


def test_flow_matching_learns_two_outcomes_where_a_mean_would_lie_between():
    torch.manual_seed(0)
    dynamics = FlowDynamics(
        8, 1, 1, hidden_dim=64, source="noise", rollout="estimate", end_weight=0, flow_weight=1, substeps=8
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
        ({"space": "logits"}, "'logit'"),
        ({"source": "gauss"}, "source 'gauss'"),
        ({"parametrisation": "velocty"}, "'velocity'"),
        ({"method": "heun"}, "no velocity at τ = 1"),
        ({"method": "dopri5"}, "no velocity at τ = 1"),
        ({"parametrisation": "residual", "source": "noise"}, "zero source"),
        ({"end_weight": 0}, "nothing trains it"),
        ({"substeps": 0}, "substeps 0"),
        ({"source": "noise", "noise_dim": 33}, "noise_dim 33"),
        ({"source": "noise", "noise_power": 0.0}, "noise_power 0"),
        ({"energy_weight": 1.0}, "source: noise"),
        ({"energy_samples": 1}, "energy_samples 1"),
        ({"energy_group_exponent": 2.0}, "energy_group_exponent 2"),
        ({"energy_group_weight": 1.0}, "energy_weight above zero"),
        ({"noise_dim": 4}, "noise_dim 4.*source: noise"),
        ({"source": "latent", "source_scale": 0.5}, "source_scale 0.5.*source: noise"),
        ({"energy_group_exponent": 0.0}, "energy_group_exponent 0"),
    ],
)
def test_options_that_cannot_be(options, words):
    with pytest.raises(LitPWMError, match=words):
        FlowDynamics(Z, A, E, **options)


@pytest.mark.parametrize(("power", "kurtosis"), [(1.0, 3.0), (2.0, 35 / 3), (3.0, 46.2)])
def test_noise_of_any_power_has_unit_variance_and_its_own_tails(power, kurtosis):
    torch.manual_seed(0)
    noise = FlowDynamics(Z, A, E, source="noise", noise_power=power).start.noise(torch.empty(200_000, Z))
    assert noise.mean().item() == pytest.approx(0, abs=0.003)
    assert noise.var().item() == pytest.approx(1, rel=0.01)
    assert noise.pow(4).mean().item() == pytest.approx(kurtosis, rel=0.1)  # E ε^4p / (E ε^2p)²
    few = FlowDynamics(Z, A, E, source="noise", noise_power=power, noise_dim=4).start.noise(torch.empty(50_000, Z))
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
    {}, {"parametrisation": "velocity"}, {"parametrisation": "residual"}, {"source": "latent"}, {"source": "noise"},
    {"space": "latent"}, {"space": "latent", "source": "latent", "parametrisation": "velocity"},
], ids=str)  # fmt: skip
def test_eulers_steps_are_torchdiffeqs(options, substeps):
    dynamics = large(FlowDynamics(Z, A, E, hidden_dim=24, substeps=substeps, **options))
    z, action, embedding = inputs(6)
    torch.manual_seed(3)
    ours = dynamics(z, action, embedding)
    torch.manual_seed(3)
    start, condition = dynamics.start(z), dynamics._condition(z, action, embedding)
    space, kind = SPACES[dynamics.space], PARAMETRISATIONS[dynamics.parametrisation]

    def velocity(tau, x):
        return kind.velocity(dynamics._evaluate(float(tau), x, condition), x, float(tau), space)

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
