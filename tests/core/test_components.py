"""What a component saves of itself is what its constructor was called with, and nobody writes it down again."""

from __future__ import annotations

import copy
import pickle
from dataclasses import dataclass
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from lit_pwm.errors import LitPWMError
from lit_pwm.flow import FixedStep
from lit_pwm.models import (
    Dynamics,
    EnergyLoss,
    FlowDynamics,
    FlowLoss,
    GroupScore,
    LatentTarget,
    MLPDynamics,
    NoiseSource,
    Source,
)
from lit_pwm.models.component import Component, factory_from, made
from lit_pwm.models.layers import simnorm
from lit_pwm.models.noise import OwnNoise, seed_noise
from lit_pwm.options import OptionObject, Positive

Z, A, E = 16, 2, 4


class Plain(Dynamics):
    """As the README's: nothing but a constructor and a forward pass."""

    def __init__(self, latent_dim, action_dim, task_dim, bias=True, widths=(3, 4), scale=1.0):
        super().__init__(latent_dim, action_dim, task_dim)
        self.map = nn.Linear(latent_dim + task_dim + action_dim, latent_dim, bias=bias)

    def forward(self, z, action, embedding):
        return simnorm(self.map(torch.cat([z, embedding, action], dim=-1)))


class ByHand(Plain):
    """As the README's was."""

    def __init__(self, latent_dim, action_dim, task_dim, bias=True):
        super().__init__(latent_dim, action_dim, task_dim, bias)
        self.bias = bias

    @property
    def init_args(self):
        return {"bias": self.bias}


class OtherNames(Plain):
    def __init__(self, z, a, e, bias=False):
        super().__init__(z, a, e, bias)


class PassingOn(MLPDynamics):
    """Takes one option itself, fixes one, and hands the others on."""

    def __init__(self, latent_dim, action_dim, task_dim, share=0.5, **options):
        super().__init__(latent_dim, action_dim, task_dim, layers=1, **options)


@dataclass(frozen=True)
class Gains(OptionObject):
    first: Positive = 1.0
    second: Positive = 2.0


class Gate(Component):
    dimensions = ("width",)

    def __init__(self, width, power=1.0):
        super().__init__()
        self.power = power


class WithParts(Plain):
    def __init__(self, latent_dim, action_dim, task_dim, gate=Gate, gains=Gains, activation=None):
        super().__init__(latent_dim, action_dim, task_dim)
        self.gate = made(gate, Gate, latent_dim, option="gate", owner="WithParts")
        self.gains = made(gains, Gains)


def here(cls, **options):
    return {"class_path": f"{cls.__module__}.{cls.__qualname__}", "init_args": options}


MADE = [
    (lambda: Plain(Z, A, E), {"bias": True, "widths": [3, 4], "scale": 1.0}),
    (lambda: Plain(Z, A, E, False, scale=np.float32(2)), {"bias": False, "widths": [3, 4], "scale": 2.0}),
    (lambda: Plain(action_dim=A, latent_dim=Z, task_dim=E), {"bias": True, "widths": [3, 4], "scale": 1.0}),
    (lambda: ByHand(Z, A, E, bias=False), {"bias": False}),
    (lambda: OtherNames(Z, A, E, True), {"bias": True}),
    (lambda: PassingOn(Z, A, E, hidden_dim=8), {"share": 0.5, "hidden_dim": 8, "rescale_inputs": True}),
    (lambda: PassingOn(Z, A, E, 0.25), {"share": 0.25, "hidden_dim": 512, "rescale_inputs": True}),
    (
        lambda: WithParts(Z, A, E, gate=partial(Gate, power=3.0), gains=Gains(second=5.0)),
        {"gate": here(Gate, power=3.0), "gains": here(Gains, first=1.0, second=5.0), "activation": None},
    ),
]


@pytest.mark.parametrize(("make", "expected"), MADE)
def test_the_options_of_the_call_are_saved_and_rebuild_it(make, expected):
    component = make()
    assert component.init_args == expected
    again = factory_from(component.description(), Dynamics)(Z, A, E)
    assert type(again) is type(component)
    assert again.init_args == expected
    for copied in (copy.deepcopy(component), pickle.loads(pickle.dumps(component))):
        assert copied.init_args == expected


def test_a_description_is_plain_and_complete_to_the_innermost_part(tmp_path):
    loss = EnergyLoss(groups=GroupScore(0.5), samples=3)
    flow = FlowDynamics(Z, A, E, hidden_dim=8, source=partial(NoiseSource, dim=3), solver=FixedStep("heun", 1),
                        parametrisation="velocity", loss=loss)  # fmt: skip
    torch.save(flow.description(), tmp_path / "description.pt")
    description = torch.load(tmp_path / "description.pt", weights_only=True)
    again = factory_from(description, Dynamics)(Z, A, E)
    assert again.description() == description
    assert (again.loss, again.solver, again.source.init_args) == (loss, flow.solver, flow.source.init_args)
    assert description["init_args"].keys().isdisjoint(Dynamics.dimensions)


@dataclass(frozen=True)
class AbsoluteError(FlowLoss):
    """A user's loss of flows."""

    weight: Positive = 2.0

    def step(self, flow, at):
        predicted, _ = flow.solve(at.start, at.condition)
        return predicted, self.weight * (predicted - at.target.latent).abs().mean(-1)


class LearnedSource(Source):
    """A user's source, with a weight."""

    def __init__(self, latent_dim, space, gain=0.5):
        super().__init__(latent_dim, space)
        self.gain, self.bias = gain, nn.Parameter(torch.ones(latent_dim))

    def forward(self, z, noise):
        return self.gain * self.bias.expand_as(z)


def test_sources_and_losses_of_a_user_are_parts_of_a_flow():
    flow = FlowDynamics(Z, A, E, hidden_dim=8, source=partial(LearnedSource, gain=2.0), loss=AbsoluteError(3.0))
    again = factory_from(flow.description(), Dynamics)(Z, A, E)
    assert (again.loss, again.source.gain) == (flow.loss, 2.0)
    again.load_state_dict(flow.state_dict())
    z, logits = simnorm(torch.randn(5, Z)), torch.randn(5, Z)
    given = z, torch.randn(5, A), torch.randn(5, E), LatentTarget(simnorm(logits), logits, z)
    predicted, loss = again.predict_with_loss(*given)
    torch.testing.assert_close(predicted, flow(*given[:3]))
    torch.testing.assert_close(loss, 3 * (predicted - simnorm(logits)).abs().mean(-1))
    loss.sum().backward()
    assert again.source.bias.grad.abs().max() > 0


def test_what_a_checkpoint_cannot_hold_is_named():
    component = WithParts(Z, A, E, activation=nn.Mish)
    with pytest.raises(LitPWMError, match=r"WithParts was given activation .*Mish.*kept as the attribute 'activation'"):
        component.description()
    with pytest.raises(LitPWMError, match="WithParts has gate 'wide', where a Gate is expected"):
        WithParts(Z, A, E, gate="wide")
    with pytest.raises(LitPWMError, match="where a Gate is expected"):
        WithParts(Z, A, E, gate=Gains)


def test_own_noise_is_nobody_elses_and_copies_go_on_where_it_was():
    noise, like = OwnNoise(), torch.zeros((), dtype=torch.float64)
    before = torch.get_rng_state()
    first = noise.normal(3, 2, like=like)
    assert torch.equal(torch.get_rng_state(), before)
    assert (first.shape, first.dtype) == ((3, 2), torch.float64)
    copies = copy.deepcopy(noise), pickle.loads(pickle.dumps(noise)), pickle.loads(pickle.dumps(copy.deepcopy(noise)))
    then = noise.normal(3, 2, like=like)
    assert not torch.equal(then, first)
    for one in copies:
        assert torch.equal(one.normal(3, 2, like=like), then)
    noise.seed(0)
    assert torch.equal(noise.normal(3, 2, like=like), first)


def test_a_seed_gives_each_component_a_stream_of_its_own():
    pair = nn.ModuleList([Plain(Z, A, E), Plain(Z, A, E)])
    draws = []
    for seed in (3, 3, 4):
        seed_noise(pair, seed)
        draws.append([part.own_noise.normal(4, like=torch.zeros(())) for part in pair])
    assert torch.equal(draws[0][0], draws[1][0])
    assert not torch.equal(draws[0][0], draws[0][1])
    assert not torch.equal(draws[0][0], draws[2][0])
    assert all("noise" not in name for name in pair.state_dict())
