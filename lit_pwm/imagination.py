"""Latent rollouts under a policy, and the returns and targets computed on them (PWM; SHAC, arXiv 2204.07137)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from lit_pwm.models.actors import Actor
from lit_pwm.models.world_model import WorldModel

RewardSpace = Literal["symlog", "raw"]


@dataclass(frozen=True)
class Imagined:
    """A rollout of H steps in latent space; gradients flow from rewards and latents to the actor.

    Attributes:
        latents: [H+1, B, Z].
        actions: [H, B, A].
        rewards: [H, B], in the reward space asked for.
    """

    latents: Tensor
    actions: Tensor
    rewards: Tensor


def imagine(
    world_model: WorldModel,
    actor: Actor,
    z: Tensor,
    task: Tensor,
    noise: Tensor,
    reward_space: RewardSpace = "symlog",
    detach_actor_input: bool = True,
    deterministic: bool = False,
) -> Imagined:
    """Roll a policy through the world model.

    Args:
        world_model: predicts latents and rewards.
        actor: chooses actions.
        z: first latents [B, Z].
        task: task ids [B].
        noise: the actor's standard normal noise [H, B, A]; its length is the horizon.
        reward_space: decoded rewards in symlog units (PWM's choice) or environment units.
        detach_actor_input: cut the gradient at the actor's input, so that it flows only through the dynamics and the
            rewards (PWM's choice).
        deterministic: ignore the noise and act by the actor's deterministic action.

    Returns:
        The rollout.
    """
    embedding = world_model.task_embedding(task)
    latents, actions = [z], []
    for step_noise in noise:
        state = latents[-1].detach() if detach_actor_input else latents[-1]
        actions.append(actor(state, task, deterministic, step_noise))
        latents.append(world_model.dynamics(latents[-1], actions[-1], embedding))
    zs, acts = torch.stack(latents), torch.stack(actions)
    logits = world_model.reward_logits_embedded(zs[:-1], acts, embedding)
    decode = world_model.two_hot.decode_symlog if reward_space == "symlog" else world_model.two_hot.decode
    return Imagined(zs, acts, decode(logits))


def discounted_return(rewards: Tensor, terminal_value: Tensor, gamma: float, terminal_discount: float) -> Tensor:
    """Σ_t γ^t r_t + terminal_discount · V for rewards [H, B] and terminal_value [B], of shape [B].

    The terminal discount is γ^H; it is explicit because the reference's is γ^(H+1).
    """
    weights = gamma ** torch.arange(len(rewards), dtype=rewards.dtype, device=rewards.device)
    return (weights[:, None] * rewards).sum(0) + terminal_discount * terminal_value


def td_lambda(rewards: Tensor, next_values: Tensor, gamma: float, lam: float) -> Tensor:
    """TD(λ) targets: G_{H−1} = r_{H−1} + γ v_H; G_t = r_t + γ [(1 − λ) v_{t+1} + λ G_{t+1}].

    Args:
        rewards: r_t [H, B].
        next_values: v_{t+1} [H, B], the values after each step.
        gamma: discount.
        lam: λ; 0 gives one-step targets.

    Returns:
        G [H, B].
    """
    targets = [rewards[-1] + gamma * next_values[-1]]
    for reward, value in zip(rewards[:-1].flip(0), next_values[:-1].flip(0), strict=True):
        targets.append(reward + gamma * ((1 - lam) * value + lam * targets[-1]))
    return torch.stack(targets[::-1])
