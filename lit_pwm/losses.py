"""The losses of world-model pre-training, as plain functions of tensors."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lit_pwm.batch import Batch
from lit_pwm.models.dynamics import LatentTarget
from lit_pwm.models.layers import simnorm
from lit_pwm.models.world_model import WorldModel


@dataclass(frozen=True)
class WorldModelLoss:
    """The parts of the loss; scalars with gradient.

    Attributes:
        total: what is minimised.
        consistency: the dynamics' own loss, averaged over time with discount ρ, before its coefficient.
        reward: two-hot cross-entropy, averaged likewise, before its coefficient.
        latent_variance: variance of target latents over the batch, averaged over entries; near zero for a collapsed
            encoder.
    """

    total: Tensor
    consistency: Tensor
    reward: Tensor
    latent_variance: Tensor


def discounted_mean(per_step: Tensor, rho: float) -> Tensor:
    """(1/H) Σ_t ρ^t mean_B x_t for x [H, ..., B]."""
    weights = rho ** torch.arange(len(per_step), dtype=per_step.dtype, device=per_step.device)
    return (weights * per_step.flatten(1).mean(1)).mean()


def world_model_loss(
    world_model: WorldModel,
    batch: Batch,
    rho: float = 0.99,
    consistency_coef: float = 20.0,
    reward_coef: float = 0.1,
    target_logits: Tensor | None = None,
) -> WorldModelLoss:
    """TD-MPC2's world-model loss over open-loop rollouts of slices (arXiv 2310.16828, eq. 3, without the value term).

    z_0 = enc(o_0), ẑ_{t+1} = next(ẑ_t, a_t), targets z_{t+1} = sg enc(o_{t+1}):
    L = (1/H) Σ_t ρ^t mean_B [ c_z · consistency(ẑ_{t+1}, z_{t+1}) + c_r · CE(reward_logits(ẑ_t, a_t), r_t) ].

    Args:
        world_model: the model in training.
        batch: slices `obs [H+1, B, O]`, `action [H, B, A]`, `reward [H, B]`, `task [B]`.
        rho: discount of later steps.
        consistency_coef: c_z.
        reward_coef: c_r.
        target_logits: what the next observations are encoded to before SimNorm, [H, B, Z], without gradient, by another
            encoder than the model's own.

    Returns:
        The loss and its parts.
    """
    obs, actions, task = batch["obs"], batch["action"], batch["task"]
    with torch.no_grad():
        if target_logits is None:
            target_logits = world_model.encode_logits(obs[1:], task)
        targets = simnorm(target_logits)
        target_logits = target_logits.to(targets.dtype)  # states' precision under autocast too
    embedding = world_model.task_embedding(task)
    latents, consistency, rewards = [world_model.encode(obs[0], task)], [], batch["reward"]
    if (samples := world_model.dynamics.samples) > 1:
        latents = [latents[0].expand(samples, -1, -1)]
        embedding, rewards = embedding.expand(samples, -1, -1), rewards[:, None].expand(-1, samples, -1)
        actions = actions[:, None].expand(-1, samples, -1, -1)
    for t, action in enumerate(actions):
        current = targets[t - 1] if t else latents[0].detach()
        noise = (
            None if shape is None else torch.randn(*latents[-1].shape[:-1], *shape, device=current.device).to(current)
            for shape in (world_model.dynamics.noise_shape, world_model.dynamics.loss_noise_shape)
        )
        target = LatentTarget(targets[t], target_logits[t], current, t, (targets, target_logits), *noise)
        z, error = world_model.dynamics.predict_with_loss(latents[-1], action, embedding, target)
        latents.append(z)
        consistency.append(error)
    reward_logits = world_model.reward_logits_embedded(torch.stack(latents[:-1]), actions, embedding)
    consistency_loss = discounted_mean(torch.stack(consistency), rho)
    reward_loss = discounted_mean(world_model.two_hot.cross_entropy(reward_logits, rewards), rho)
    return WorldModelLoss(
        total=consistency_coef * consistency_loss + reward_coef * reward_loss,
        consistency=consistency_loss,
        reward=reward_loss,
        latent_variance=targets[0].var(0, unbiased=False).mean(),
    )


def sigreg(x: Tensor, directions: Tensor, points: int = 17, reach: float = 5.0) -> Tensor:
    """How far projections of a batch are from a standard normal (SIGReg, arXiv 2511.08544): the Epps–Pulley statistic.

    ∫ |φ̂_u(t) − e^{−t²/2}|² e^{−t²/2} dt, averaged over directions u, where φ̂_u is the empirical characteristic function
    of the projections: near zero for a normal batch, √(2π)(1 − √2 + 1/√3) = 0.41 for one collapsed to zero. By the
    trapezoid rule on `points` of [0, `reach`], doubled.

    Args:
        x: samples [N, D].
        directions: unit vectors [D, M].
        points: points of the quadrature.
        reach: largest t.

    Returns:
        A scalar with gradient.
    """
    t = torch.linspace(0, reach, points, dtype=x.dtype, device=x.device)
    phases = (x @ directions)[..., None] * t
    normal = torch.exp(-0.5 * t.square())
    gap = (phases.cos().mean(0) - normal).square() + phases.sin().mean(0).square()
    return 2 * torch.trapezoid(gap * normal, t, dim=-1).mean()
