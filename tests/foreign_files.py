"""Files of other formats, of tiny networks or of the oracles' weights, made as the projects that they come from do."""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from typing import Any

import torch

from lit_pwm import PolicyLearning
from lit_pwm.models import CriticEnsemble, MLPActor

LAYER = ("weight", "bias", "ln.weight", "ln.bias")
Weights = dict[str, Any]
THREE_TASKS = {"cup-catch": (8, 2), "walker-walk": (24, 6), "cheetah-run": (17, 6)}
"""Of MT30, in another order than there."""


def mlp_weights(prefix: str, widths: list[int], last_is_plain: bool, stacked: int | None = None) -> Weights:
    """Random weights of normed layers, no LayerNorm of which is the identity; the last one may be a plain layer."""
    found, lead = {}, [] if stacked is None else [stacked]
    for number, (inputs, outputs) in enumerate(pairwise(widths)):
        kinds = LAYER[:2] if last_is_plain and number == len(widths) - 2 else LAYER
        for kind in kinds:
            shape = [outputs, inputs] if kind == "weight" else [outputs]
            value = 0.3 * torch.randn(*lead, *shape)
            found[f"{prefix}{number}.{kind}"] = 1 + value if kind == "ln.weight" else value
    return found


def world_model_weights(
    rows: int | None = 30, obs: int = 24, action: int = 6, latent: int = 16, hidden: int = 12, encoder: int = 10,
    task: int = 4, encoder_layers: int = 1, bins: int = 101, state: str = "state.",
) -> Weights:  # fmt: skip
    """A tiny world model by TD-MPC2's keys, in its order; `rows` None is that of a single task."""
    torch.manual_seed(0)
    task = task if rows else 0
    found = {"_task_emb.weight": torch.randn(rows, task)} if rows else {}
    found |= mlp_weights(f"_encoder.{state}", [obs + task, *[encoder] * encoder_layers, latent], False)
    found |= mlp_weights("_dynamics.", [latent + task + action, hidden, hidden, latent], False)
    return found | mlp_weights("_reward.", [latent + task + action, hidden, hidden, bins], True)


def agent_weights(world_model: Weights, ensemble: int = 2) -> tuple[Weights, Weights, Weights]:
    """A policy prior, Q functions and their targets for a world model, by named keys without prefix of the Qs."""
    torch.manual_seed(1)
    task = world_model["_task_emb.weight"].shape[1] if "_task_emb.weight" in world_model else 0
    hidden, inputs = world_model["_dynamics.0.weight"].shape
    latent, bins = world_model["_dynamics.2.bias"].numel(), world_model["_reward.2.bias"].numel()
    action = inputs - latent - task
    prior = mlp_weights("_pi.", [latent + task, hidden, hidden, 2 * action], True)
    value, target = (mlp_weights("", [inputs, hidden, hidden, bins], True, stacked=ensemble) for _ in range(2))
    return prior, value, target


def original_file(world_model: Weights) -> Weights:
    """As TD-MPC2 saved until October 2024."""
    prior, *values = agent_weights(world_model)
    weights = dict(world_model) | prior
    for prefix, value in zip(("_Qs", "_target_Qs"), values, strict=True):
        weights |= {f"{prefix}.params.{number}": tensor for number, tensor in enumerate(value.values())}
    return {"model": weights}


def current_file(world_model: Weights, tensordict: str = "0.8", action_dims: list[int] | None = None) -> Weights:
    """As TD-MPC2 saves since, with an old or a new version of tensordict."""
    prior, value, target = agent_weights(world_model)
    action = prior["_pi.2.bias"].numel() // 2
    weights: Weights = {}
    if "_task_emb.weight" in world_model:
        rows = len(world_model["_task_emb.weight"])
        dims = torch.tensor(action_dims or [action] * rows)
        weights["_action_masks"] = (torch.arange(action) < dims[:, None]).float()
    weights |= {"log_std_min": torch.tensor(-10), "log_std_dif": torch.tensor(12)} | world_model | prior
    ensemble = len(value["0.weight"])
    for prefix, tensors in (("_Qs.params", value), ("_detach_Qs_params", value), ("_target_Qs_params", target)):
        weights |= {f"{prefix}.{key}": tensor for key, tensor in tensors.items()}
        if tensordict == "0.8":
            weights |= {f"{prefix}.__batch_size": torch.Size([ensemble]), f"{prefix}.__device": None}
    if tensordict != "0.8":
        for prefix in ("_Qs", "_detach_Qs", "_target_Qs"):
            weights |= {f"{prefix}.module.{key}": tensor[0] for key, tensor in value.items()}
    return {"model": weights}


def tiny_policy(world_model_checkpoint: object, **options: Any) -> PolicyLearning:
    """Policy learning with networks of eight units on a world model."""
    actor = partial(MLPActor, hidden_dims=(8,))
    critic = partial(CriticEnsemble, hidden_dims=(8,))
    return PolicyLearning(str(world_model_checkpoint), actor=actor, critic=critic, horizon=4, **options)
