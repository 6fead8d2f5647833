"""World models of each kind of dynamics that has a loss of its own, and what the objective makes of a batch."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from lit_pwm.losses import WorldModelObjective
from lit_pwm.models import (
    Dynamics,
    EndPointError,
    EnergyLoss,
    FlowDynamics,
    FlowMatching,
    MLPDynamics,
    NoiseSource,
    RefinementDynamics,
    WorldModel,
)

KINDS = {
    "mlp": partial(MLPDynamics, hidden_dim=16),
    "refinement": partial(RefinementDynamics, hidden_dim=16),
    "flow with matching": partial(FlowDynamics, hidden_dim=16, loss=EndPointError(matching=FlowMatching())),
    "samples": partial(FlowDynamics, hidden_dim=16, source=NoiseSource, loss=EnergyLoss(samples=3)),
}
TASKS = {"a": (5, 2), "b": (3, 1)}


def small_model(kind: Callable[..., Dynamics], **options: Any) -> WorldModel:
    """A world model with weights that are all drawn."""
    torch.manual_seed(0)
    model = WorldModel(TASKS, kind, latent_dim=16, encoder_dim=16, reward_dim=16, task_dim=4, **options)
    for p in model.parameters():  # the reward's last layer begins at zero
        p.data.add_(0.1 * torch.randn_like(p))
    return model


def lost(
    model: WorldModel, batch: Mapping[str, Any], objective: WorldModelObjective | None = None
) -> dict[str, Tensor]:
    """Parts of the loss, all gradients, and buffers after the update."""
    model, objective = copy.deepcopy(model), objective or WorldModelObjective()
    shapes = objective.noise_shapes(model, len(batch["action"]))
    generator = torch.Generator().manual_seed(7)
    noise = {name: torch.randn(len(batch["task"]), *shape, generator=generator) for name, shape in shapes.items()}
    parts = objective(model, batch, noise)
    parts["total"].backward()
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return {name: part.detach() for name, part in parts.items()} | gradients | dict(model.named_buffers())


def same(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    """Whether all are the same to the bit."""
    assert one.keys() == other.keys()
    return all(torch.equal(one[name], other[name]) for name in one)
