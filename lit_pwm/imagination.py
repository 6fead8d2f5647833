"""Latent rollouts under a policy, and the returns and targets computed on them (PWM; SHAC, arXiv 2204.07137).

Shapes: H imagined steps, B starts (or any leading axes of the first latents, such as candidates of a planner beside
starts, where [B] is written), Z latent width, A action width. Time comes first: step t leads from latent t to t + 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

import torch
from torch import Tensor

from lit_pwm.discounting import ContinuationDiscount, Discounting
from lit_pwm.models.actors import Actor
from lit_pwm.models.world_model import WorldModel
from lit_pwm.options.return_units import RewardSpace

_DISCOUNTING = ContinuationDiscount()


@dataclass(frozen=True)
class Imagined:
    """A rollout of H steps in latent space; gradients flow from all of it to the actor.

    Attributes:
        latents: [H+1, B, Z].
        actions: [H, B, A].
        rewards: [H, B], in the reward space asked for.
        continuation: c_t, P(the episode goes on after step t) [H, B]; None where every episode goes on.
    """

    latents: Tensor
    actions: Tensor
    rewards: Tensor
    continuation: Tensor | None = None

    def tensors(self) -> tuple[Tensor, ...]:
        """What there is of it, in the order of the constructor."""
        found = self.latents, self.actions, self.rewards
        return found if self.continuation is None else (*found, self.continuation)

    @cached_property
    def survival(self) -> Tensor | None:
        """Π_{k<t} c_k [H+1, B], P(the episode has not ended before step t); None where every episode goes on."""
        if self.continuation is None:
            return None
        # A product of one factor after another: the gradient of `cumprod` looks for zeros on the host.
        return torch.stack([*accumulate(self.continuation, torch.mul, initial=torch.ones_like(self.continuation[0]))])

    def counted(self) -> tuple[Tensor, Tensor]:
        """Σ w r and Σ w over all steps and starts, scalars without gradient, with w = Π_{k<t} c_k.

        Their quotient is the mean imagined reward: the model knows nothing of rewards beyond an end.
        """
        weights = torch.ones_like(self.rewards) if self.survival is None else self.survival[:-1]
        weights = weights.detach()
        return (weights * self.rewards.detach()).sum(), weights.sum()


def imagine(
    world_model: WorldModel,
    actor: Actor,
    z: Tensor,
    task: Tensor,
    noise: Tensor,
    reward_space: RewardSpace = "symlog",
    detach_actor_input: bool = True,
    deterministic: bool = False,
    dynamics_noise: Tensor | None = None,
    discounting: Discounting = _DISCOUNTING,
) -> Imagined:
    """Roll a policy through the world model.

    Args:
        world_model: predicts latents and rewards.
        actor: chooses actions.
        z: first latents [B, Z].
        task: task ids [B], or what broadcasts to it.
        noise: the actor's standard normal noise [H, B, A]; its length is the horizon.
        reward_space: decoded rewards in symlog units (PWM's choice) or environment units.
        detach_actor_input: cut the gradient at the actor's input, so that it flows only through the dynamics and the
            rewards (PWM's choice).
        deterministic: ignore the noise and act by the actor's deterministic action.
        dynamics_noise: standard normal noise [H, B, *noise_shape] of dynamics that sample; they draw their own without.
        discounting: says whether what the world model knows of ends counts.

    Returns:
        The rollout.
    """
    task = task.expand(z.shape[:-1])
    embedding = world_model.task_embedding(task)
    latents, actions = [z], []
    for t, step_noise in enumerate(noise):
        state = latents[-1].detach() if detach_actor_input else latents[-1]
        actions.append(actor(state, task, deterministic, step_noise))
        own = () if dynamics_noise is None else (dynamics_noise[t],)  # kinds that declare none take three arguments
        latents.append(world_model.dynamics(latents[-1], actions[-1], embedding, *own))
    zs, acts = torch.stack(latents), torch.stack(actions)
    logits = world_model.reward_logits_embedded(zs[:-1], acts, embedding)
    decode = world_model.reward_head.decode_symlog if reward_space == "symlog" else world_model.reward_head.decode
    return Imagined(zs, acts, decode(logits), discounting.continuation(world_model, zs[:-1], acts, embedding, task))


def discounted_return(
    rewards: Tensor,
    terminal_value: Tensor,
    gamma: float | Tensor,
    terminal_discount: float | Tensor | None = None,
) -> Tensor:
    """Σ_t (Π_{k<t} γ_k) r_t + (Π_{k<H} γ_k) V, of shape [B].

    Args:
        rewards: r_t [H, B].
        terminal_value: V of the last state [B].
        gamma: discount γ of every step, or γ_t of each [H, B], by which what comes after step t counts.
        terminal_discount: another factor of V; the reference's is γ^(H+1).
    """
    if isinstance(gamma, Tensor):
        reached = gamma.cumprod(0)
        weights = torch.cat([torch.ones_like(reached[:1]), reached[:-1]])
        last = reached[-1] if terminal_discount is None else terminal_discount
        return (weights * rewards).sum(0) + last * terminal_value
    powers = gamma ** torch.arange(len(rewards), dtype=rewards.dtype, device=rewards.device)
    weights = powers.view(-1, *(1,) * (rewards.ndim - 1))
    last = gamma ** len(rewards) if terminal_discount is None else terminal_discount
    return (weights * rewards).sum(0) + last * terminal_value


def td_lambda(rewards: Tensor, next_values: Tensor, gamma: float | Tensor, lam: float) -> Tensor:
    """TD(λ) targets: G_{H−1} = r_{H−1} + γ v_H; G_t = r_t + γ [(1 − λ) v_{t+1} + λ G_{t+1}].

    Args:
        rewards: r_t [H, B].
        next_values: v_{t+1} [H, B], the values after each step.
        gamma: discount γ of every step, or γ_t of each [H, B].
        lam: λ; 0 gives one-step targets.

    Returns:
        G [H, B].
    """
    gammas: Sequence[float | Tensor] = list(gamma) if isinstance(gamma, Tensor) else [gamma] * len(rewards)
    targets = [rewards[-1] + gammas[-1] * next_values[-1]]
    for t in range(len(rewards) - 2, -1, -1):
        targets.append(rewards[t] + gammas[t] * ((1 - lam) * next_values[t] + lam * targets[-1]))
    return torch.stack(targets[::-1])
