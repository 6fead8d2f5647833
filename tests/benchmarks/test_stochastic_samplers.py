"""The samplers without an ODE are trained as the sampled flow is, on read-outs of their own."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from stochastic_arms import ARMS, MODELS, SHARP, rollouts
from stochastic_samplers import NoisyMLP, NoisyRefinement

from lit_pwm.flow import FixedStep
from lit_pwm.losses import WorldModelObjective
from lit_pwm.models import Dynamics, FlowDynamics, LatentTarget, WorldModel
from lit_pwm.models.component import factory_from
from lit_pwm.models.energy_score import energy_error
from lit_pwm.models.layers import simnorm
from lit_pwm.models.noise import seed_noise

SAMPLERS = "one-step-energy", "refinement-energy", "mlp-energy"
DIMENSIONS = 16, 2, 3


def made(name):
    torch.manual_seed(0)
    dynamics = MODELS[name].dynamics(*DIMENSIONS)
    with torch.no_grad():
        for parameter in dynamics.parameters():
            parameter.mul_(2)  # from where every sample is nearly the same
    return dynamics


def inputs(samples=2, batch=6):
    generator = torch.Generator().manual_seed(0)
    z = simnorm(torch.randn(samples, batch, DIMENSIONS[0], generator=generator))
    logits = 2 * torch.randn(batch, DIMENSIONS[0], generator=generator)
    rest = (torch.rand(samples, batch, width, generator=generator) for width in DIMENSIONS[1:])
    return (z, *rest), LatentTarget(simnorm(logits), logits, z[0])


@pytest.mark.parametrize("name", [*SAMPLERS, "flow-energy-sharp"])
def test_the_loss_is_the_energy_score_of_latents_and_groups_at_every_read_out(name):
    dynamics, (given, target) = made(name), inputs()
    noise = torch.randn(2, 6, *dynamics.noise_shape)
    predicted, loss = dynamics.predict_with_loss(*given, replace(target, noise=noise))
    if isinstance(dynamics, FlowDynamics):
        estimates = dynamics.solve(dynamics.start(given[0], noise), dynamics.condition(*given))[1]
        *earlier, last = map(simnorm, estimates)
    else:
        *earlier, last = dynamics.read_outs(*given, noise)
    assert len(earlier) == {"refinement-energy": 1, "flow-energy-sharp": 1}.get(name, 0)
    torch.testing.assert_close(predicted, last)
    scale = target.latent.var(0, unbiased=False).mean().sqrt()

    def score(samples):
        in_groups = energy_error(samples, target.latent, groups=2, exponent=0.5)
        return scale * energy_error(samples, target.latent) + scale**1.5 * in_groups

    expected = score(last) + sum(0.5 * score(latent) for latent in earlier)
    torch.testing.assert_close(loss, expected.expand(2, -1))


def test_one_step_is_one_evaluation_of_the_flows_own_field(monkeypatch):
    flow, twin = made("flow-energy-sharp"), made("one-step-energy")
    assert flow.init_args | {"solver": twin.init_args["solver"]} == twin.init_args
    assert twin.solver == FixedStep("euler", 1)
    twin.load_state_dict(flow.state_dict())
    calls, (given, _) = [], inputs()
    field = twin.field.velocity
    monkeypatch.setattr(twin.field, "velocity", lambda tau, *rest: (calls.append(tau), field(tau, *rest))[1])
    numbers = torch.randn(2, 6, 4)
    sample = twin(*given, numbers)
    assert calls == [0.0]
    noise = twin.start(given[0], numbers)
    torch.testing.assert_close(sample, simnorm(field(0.0, 8 * simnorm(noise) - 1, twin.condition(*given))))


def test_a_refinement_starts_at_the_flows_noise_and_adds_two_corrections():
    dynamics, (given, _) = made("refinement-energy"), inputs()
    start, noise = FlowDynamics(*DIMENSIONS, **SHARP).start, torch.randn(2, 6, 4)
    first, second = dynamics.read_outs(*given, noise)
    x, condition = start(given[0], noise), dynamics.field.condition(8 * given[0] - 1, *reversed(given[1:]))
    for k, read_out in ((0, first), (1, second)):
        x = x + dynamics.field(k / 2, 8 * simnorm(x) - 1, condition)
        torch.testing.assert_close(read_out, simnorm(x))


def test_an_mlp_sees_four_heavy_tailed_numbers_beside_its_inputs():
    dynamics, (given, _) = made("mlp-energy"), inputs()
    seen = []
    dynamics.net.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    many = [x[:1, :1].expand(1, 50_000, -1) for x in given]
    dynamics(*many)
    latent, task_and_action, noise = seen[0][0].split([16, 5, 4], dim=-1)
    torch.testing.assert_close(latent[0], 8 * given[0][0, 0] - 1)
    torch.testing.assert_close(task_and_action[0], torch.cat([given[2][0, 0], given[1][0, 0]]))
    torch.testing.assert_close(noise.T.cov(), torch.eye(4), atol=0.1, rtol=0)
    assert noise.pow(4).mean().item() == pytest.approx(46.2, rel=0.2)  # of the cube of normal noise; 3 without tails


@pytest.mark.parametrize("name", SAMPLERS)
def test_samples_differ_a_seed_repeats_them_and_a_description_rebuilds_them(name):
    dynamics, (given, _) = made(name), inputs()
    again = factory_from(dynamics.description(), Dynamics)(*DIMENSIONS)
    again.load_state_dict(dynamics.state_dict())
    draws = []
    for seed, network in ((0, dynamics), (0, again), (1, dynamics)):
        seed_noise(network, seed)
        draws.append(network(*given))
    torch.testing.assert_close(draws[0], draws[1], rtol=0, atol=0)
    assert (draws[0] - draws[2]).abs().max() > 1e-3
    assert ARMS[name].predict is rollouts


@pytest.mark.parametrize("kind", [NoisyMLP, NoisyRefinement])
def test_an_update_moves_the_variance_once_and_trains_all_weights(kind):
    torch.manual_seed(0)
    model = WorldModel({"one": (3, 2)}, lambda *dims: kind(*dims, hidden_dim=12), 16, 3, encoder_dim=8, reward_dim=8)
    batch = {"obs": torch.randn(5, 4, 3), "action": torch.rand(4, 4, 2), "reward": torch.rand(4, 4)}
    WorldModelObjective()(model, {"task": torch.zeros(4, dtype=torch.int64), **batch})["total"].backward()
    assert int(model.dynamics.latent_variance.updates) == 1
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.long
def test_arms_need_no_simulator():
    blocked = "import sys; sys.modules.update(dm_control=None, mujoco=None); import stochastic_study, stochastic_arms"
    benchmarks = Path(__file__).parents[2] / "benchmarks"
    done = subprocess.run([sys.executable, "-c", blocked], cwd=benchmarks, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
