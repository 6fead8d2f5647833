"""Under bf16-mixed a weight is cast once within a loss, anew after each step, and never without its gradient."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from lit_pwm.imagination import imagine
from lit_pwm.models import FlowDynamics, MLPActor, MLPDynamics, RefinementDynamics, WorldModel
from lit_pwm.runtime.casts import cached_casts, uncached_casts

CPU = torch.device("cpu")


class Casts(TorchDispatchMode):
    """Counts casts of tensors of one shape to bfloat16."""

    def __init__(self, shape):
        super().__init__()
        self.shape, self.count = torch.Size(shape), 0

    def __torch_dispatch__(self, func, types, args: tuple = (), kwargs=None):
        kwargs = kwargs or {}
        if func is torch.ops.aten._to_copy.default and kwargs.get("dtype") == torch.bfloat16:
            self.count += args[0].shape == self.shape
        return func(*args, **kwargs)


def lightnings_autocast():
    return torch.autocast("cpu", torch.bfloat16, cache_enabled=False)


def rolled_out(layer, x, steps=5):
    for _ in range(steps):
        x = torch.tanh(layer(x))
    return x.float().square().mean()


def gradient_of(layer, x, block):
    layer.zero_grad()
    with lightnings_autocast(), block:
        loss = rolled_out(layer, x)
    loss.backward()
    return layer.weight.grad.clone()


@pytest.fixture
def parts():
    torch.manual_seed(0)
    return nn.Linear(24, 24), torch.randn(3, 24)


def test_each_weight_is_cast_once_within_a_loss(parts):
    layer, x = parts
    counts = []
    for block in (lightnings_autocast(), cached_casts(CPU)):
        with Casts((24, 24)) as casts, lightnings_autocast(), block:
            rolled_out(layer, x)
        counts.append(casts.count)
    assert counts == [5, 1]
    cached = gradient_of(layer, x, cached_casts(CPU))
    torch.testing.assert_close(cached, gradient_of(layer, x, lightnings_autocast()), atol=1e-3, rtol=0.03)
    assert cached.abs().max() > 0.01


def test_a_step_is_seen_by_the_next_loss(parts):
    layer, x = parts
    with lightnings_autocast():
        with cached_casts(CPU):
            first = rolled_out(layer, x)
        with torch.no_grad():
            layer.weight.mul_(2)
        with cached_casts(CPU):
            second = rolled_out(layer, x)
        with Casts((24, 24)) as casts:
            layer(x), layer(x)
    assert second > 1.05 * first
    assert casts.count == 2, "outside of a loss nothing is kept"


def test_what_is_cast_without_gradient_does_not_cost_the_loss_its_gradient(parts):
    layer, x = parts
    wanted = gradient_of(layer, x, cached_casts(CPU))
    layer.zero_grad()
    with lightnings_autocast(), cached_casts(CPU):
        with Casts((24, 24)) as casts, uncached_casts(CPU):
            assert not rolled_out(layer, x).requires_grad
        loss = rolled_out(layer, x)
    loss.backward()
    assert casts.count == 5
    assert torch.equal(layer.weight.grad, wanted)


def test_full_precision_is_left_alone(parts):
    layer, x = parts
    with Casts((24, 24)) as casts, cached_casts(CPU), uncached_casts(CPU):
        rolled_out(layer, x)
    assert casts.count == 0


@pytest.mark.parametrize("kind", [MLPDynamics, RefinementDynamics, FlowDynamics])
def test_a_frozen_world_model_is_cast_once_and_imagines_the_same_to_the_bit(kind):
    torch.manual_seed(0)
    make = partial(kind, hidden_dim=24)
    model = WorldModel({"a": (5, 2)}, make, latent_dim=16, task_dim=4).requires_grad_(False)
    actor, task = MLPActor(16, 2, 1, hidden_dims=(8,)), torch.zeros(6, dtype=torch.long)
    z, noise, found = model.encode(torch.randn(6, 5), task), torch.randn(4, 6, 2), []
    wide = next(p for p in model.dynamics.parameters() if p.ndim == 2 and p.numel() > 300)
    for block in (lightnings_autocast(), cached_casts(CPU, frozen=[model])):
        actor.zero_grad()
        with Casts(wide.shape) as casts, lightnings_autocast(), block:
            rollout = imagine(model, actor, z, task, noise)
        rollout.rewards.float().sum().backward(inputs=list(actor.parameters()))
        found.append((rollout.latents, rollout.rewards, actor.mean.weight.grad.clone(), casts.count))
        assert not any(p.requires_grad or p.grad is not None for p in model.parameters())
    assert torch.equal(found[0][0], found[1][0])
    assert torch.equal(found[0][1], found[1][1])
    torch.testing.assert_close(found[0][2], found[1][2], atol=1e-3, rtol=0.03)
    assert found[1][3] < found[0][3]
