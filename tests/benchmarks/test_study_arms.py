"""Every arm of the studies builds, is described and rebuilt, and trains for a few updates."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from formulation_arms import ARMS
from stochastic_arms import MODELS

from lit_pwm.losses import WorldModelObjective
from lit_pwm.models import Dynamics, WorldModel
from lit_pwm.models.component import factory_from

MAKERS = {f"formulation {name}": arm.dynamics for name, arm in ARMS.items()}
MAKERS |= {f"stochastic {name}": arm.dynamics for name, arm in MODELS.items()}


@pytest.mark.parametrize("name", MAKERS)
def test_an_arm_trains_and_is_rebuilt(name):
    torch.manual_seed(0)
    model = WorldModel({"one": (3, 2)}, partial(MAKERS[name], hidden_dim=8), latent_dim=16, task_dim=3)
    dynamics = model.dynamics
    again = factory_from(dynamics.description(), Dynamics)(16, 2, 3)
    assert again.description() == dynamics.description()
    again.load_state_dict(dynamics.state_dict())
    batch = {"obs": torch.randn(4, 6, 3), "action": torch.rand(3, 6, 2), "reward": torch.rand(3, 6)}
    batch["task"] = torch.zeros(6, dtype=torch.int64)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    before = [parameter.clone() for parameter in dynamics.parameters()]
    for _ in range(2):
        optimizer.zero_grad()
        loss = WorldModelObjective()(model, batch)["total"]
        loss.backward()
        optimizer.step()
        assert loss.isfinite()
    assert all((old != new).any() for old, new in zip(before, dynamics.parameters(), strict=True))
