"""What an update of a world model descends on: the objective, plain torch, of pre-training and of any further training.

Shapes: H steps of a slice, B slices, S samples that the dynamics roll out of each (no axis where it is one), Z latent,
A action, E task embedding. Step t goes from the state at t by action a_t to the state at t + 1; targets[t] is the
encoding of o_{t+1}. Time is the first axis, slices are the last before the entries: [H, B, ...] or [H, S, B, ...].
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from lit_pwm.batch import Batch, counted, without_padding
from lit_pwm.errors import LitPWMError, did_you_mean
from lit_pwm.models.component import Component, factory_from
from lit_pwm.models.dynamics import LatentTarget
from lit_pwm.models.heads import Head
from lit_pwm.models.layers import simnorm
from lit_pwm.models.world_model import WorldModel
from lit_pwm.options import Fraction, NonNegative
from lit_pwm.options.optimizers import WorldModelOptimizer
from lit_pwm.runtime.casts import uncached_casts

NOISE, LOSS_NOISE = "dynamics", "dynamics_loss"
"""Names of an update's draws: of the dynamics' predictions, and of what their loss needs besides."""


def discounted_mean(per_step: Tensor, rho: float) -> Tensor:
    """(1/H) Σ_t ρ^t mean_B x_t for x [H, ..., B]."""
    weights = rho ** torch.arange(len(per_step), dtype=per_step.dtype, device=per_step.device)
    return (weights * per_step.flatten(1).mean(1)).mean()


def _variance(latents: Tensor, known: Tensor | None) -> Tensor:
    """Population variance over the batch [B, Z] of those that are known [B], averaged over entries."""
    if known is None:
        return latents.var(0, unbiased=False).mean()
    weight = (known / known.sum().clamp_min(1)).to(latents.dtype)
    mean = weight @ latents
    return (weight @ (latents - mean).square()).mean()


@dataclass(frozen=True)
class Rollout:
    """What the objective's terms are made of.

    Attributes:
        latents: ẑ_0, ..., ẑ_{H−1}, the states from which a step is made, [H, ..., B, Z].
        actions: a_t, [H, ..., B, A].
        embedding: of the tasks, [..., B, E].
        consistency: the dynamics' own loss of each step, [H, ..., B].
        targets: what the next observations are encoded to, without gradient, [H, B, Z].
    """

    latents: Tensor
    actions: Tensor
    embedding: Tensor
    consistency: Tensor
    targets: Tensor


class WorldModelObjective(Component):
    """TD-MPC2's world-model loss over open-loop rollouts of slices (arXiv 2310.16828, eq. 3, without the value term).

    z_0 = enc(o_0), ẑ_{t+1} = next(ẑ_t, a_t), targets z_{t+1} = sg enc(o_{t+1}):
    L = (1/H) Σ_t ρ^t mean_B [ c_z · consistency(ẑ_{t+1}, z_{t+1}) + Σ_heads c_h · loss_h(ẑ_t, a_t) ] + extra terms.

    The mean is over all slices of the batch, also where a slice has ended before step t (`valid` of a batch is 0) and
    adds nothing: Σ_b valid[t, b] x[t, b] / B, so that equal shares of ranks add up to one process's batch.

    To change what it descends on, derive a class that overrides `targets` or `extra_terms` and name it as the module's
    `objective`.

    Args:
        rho: ρ, the weight of later steps.
        consistency_coef: c_z.
        coefficients: c_h by the name of a head; others have their class's (`Head.coefficient`: 0.1 for the reward).
    """

    def __init__(
        self,
        rho: Fraction = 0.99,
        consistency_coef: NonNegative = 20.0,
        coefficients: dict[str, NonNegative] | None = None,
    ) -> None:
        super().__init__()
        self.rho, self.consistency_coef, self.coefficients = rho, consistency_coef, dict(coefficients or {})

    @property
    def init_args(self) -> dict[str, Any]:
        """The options this was built with."""
        return {"rho": self.rho, "consistency_coef": self.consistency_coef, "coefficients": dict(self.coefficients)}

    # -- what is to be overridden -----------------------------------------------------------------------------------
    def attach(self, world_model: WorldModel) -> None:
        """Called once, when the world model's networks are built; an objective with networks of its own makes them."""

    def followers(self, world_model: WorldModel) -> list[tuple[nn.Module, nn.Module, float]]:
        """What moves at the end of each update: slow copies, the networks that they follow, and by which fraction."""
        return []

    def targets(self, world_model: WorldModel, batch: Batch) -> Tensor:
        """What the next observations are encoded to before SimNorm, [H, B, Z]; called without gradient.

        By default by the trained encoder itself.
        """
        return world_model.encode_logits(batch["obs"][1:], batch["task"])

    def extra_terms(self, world_model: WorldModel, batch: Batch, noise: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """More terms of the loss by name, scalars with their weights; none by default.

        What is not `valid` in the batch is 0 (`lit_pwm.batch.counted` leaves it out of sums over steps).
        """
        return {}

    def head_loss(self, name: str, head: Head, rollout: Rollout, batch: Batch) -> Tensor:
        """The loss of the head of this name at each step of the rollout [H, ..., B]; by default its own.

        Steps that are not `valid` in the batch are left out of it afterwards.
        """
        return head.loss(rollout.latents, rollout.actions, rollout.embedding, batch)

    def noise_shapes(self, world_model: WorldModel, horizon: int) -> dict[str, tuple[int, ...]]:
        """What an update draws: name → the shape of one slice's standard normal numbers.

        Whoever calls the objective draws them as [B, *shape] (`lit_pwm.updates.draws`).
        """
        dynamics = world_model.dynamics
        between = (dynamics.samples,) if dynamics.samples > 1 else ()
        shapes = {
            NOISE: dynamics.noise_shape,
            LOSS_NOISE: dynamics.loss_noise_shape,
        }
        return {name: (horizon, *between, *shape) for name, shape in shapes.items() if shape is not None}

    # -- what it gives ----------------------------------------------------------------------------------------------
    def forward(
        self, world_model: WorldModel, batch: Batch, noise: Mapping[str, Tensor] | None = None
    ) -> dict[str, Tensor]:
        """The loss of a batch, and its parts.

        Args:
            world_model: the model in training.
            batch: slices `obs [H+1, B, O]`, `action [H, B, A]`, `reward [H, B]`, `task [B]`. Where `valid` is 0, heads
                have no loss, and where `consistent` is 0, there is no error of the next observation.
            noise: the draws of `noise_shapes`, each [B, *shape]. Without it components draw from their own generators.

        Returns:
            Scalars with gradient: `total`, which is minimised; `consistency` and each head's loss by its name, averaged
            over time with discount ρ, before their coefficients; what `extra_terms` gives. And `latent_variance`, the
            variance of target latents over the batch, averaged over entries: near zero for a collapsed encoder.

        Raises:
            LitPWMError: coefficients of heads that the world model does not have.
        """
        noise, batch = noise or {}, without_padding(batch)
        valid, consistent = batch.get("valid"), batch.get("consistent")
        self._require_heads(world_model)
        rollout = self._roll_out(world_model, batch, noise)
        parts = {"consistency": discounted_mean(counted(rollout.consistency, consistent), self.rho)}
        total = self.consistency_coef * parts["consistency"]
        for name, module in world_model.heads.items():
            head = cast("Head", module)
            per_step = self.head_loss(name, head, rollout, batch)
            parts[name] = discounted_mean(counted(per_step, valid), self.rho)
            total = total + self.coefficients.get(name, head.coefficient) * parts[name]
        extra = self.extra_terms(world_model, batch, noise)
        for term in extra.values():
            total = total + term
        variance = _variance(rollout.targets[0], None if consistent is None else consistent[0])
        return {"total": total, **parts, **extra, "latent_variance": variance}

    def _require_heads(self, world_model: WorldModel) -> None:
        for name in self.coefficients:
            if name not in world_model.heads:
                raise LitPWMError(
                    f"The objective has a coefficient of {name!r}, and the world model has no head of this name. "
                    f"{did_you_mean(name, list(world_model.heads))}"
                )

    def _roll_out(self, world_model: WorldModel, batch: Batch, noise: Mapping[str, Tensor]) -> Rollout:
        obs, actions, task = batch["obs"], batch["action"], batch["task"]
        with uncached_casts(obs.device):
            target_logits = self.targets(world_model, batch)
            targets = simnorm(target_logits)
            target_logits = target_logits.to(targets.dtype)  # states' precision under autocast too
        dynamics, embedding = world_model.dynamics, world_model.task_embedding(task)
        latents, consistency = [world_model.encode(obs[0], task)], []
        if (samples := dynamics.samples) > 1:
            latents = [latents[0].expand(samples, -1, -1)]
            embedding = embedding.expand(samples, -1, -1)
            actions = actions[:, None].expand(-1, samples, -1, -1)
        # As drawn [B, H, (S,) ...]; as the rollout is [H, (S,) B, ...].
        drawn = {name: value.movedim(0, latents[0].ndim - 1) for name, value in noise.items() if name in _OF_DYNAMICS}
        for t, action in enumerate(actions):
            step = {_OF_DYNAMICS[name]: value[t] for name, value in drawn.items()}
            target = LatentTarget(
                targets[t], target_logits[t], targets[t - 1] if t else latents[0].detach(), step=t,
                steps=(targets, target_logits), known=batch.get("consistent"), **step,
            )  # fmt: skip
            z, error = dynamics.predict_with_loss(latents[-1], action, embedding, target)
            latents.append(z)
            consistency.append(error)
        return Rollout(torch.stack(latents[:-1]), actions, embedding, torch.stack(consistency), targets)

    def parameter_groups(self, world_model: WorldModel, optimizer: WorldModelOptimizer) -> list[dict[str, Any]]:
        """Named groups, with their learning rates, that hold every parameter of the world model exactly once."""
        lr = optimizer.lr
        groups: list[tuple[str, nn.Module, float]] = [
            ("encoder", world_model.encoder, lr * optimizer.encoder_lr_scale),
            ("dynamics", world_model.dynamics, lr),
            *((name, head, lr * cast("Head", head).lr_scale) for name, head in world_model.heads.items()),
            ("task_embedding", world_model.task_embedding, lr),
        ]
        return [{"name": name, "params": list(part.parameters()), "lr": rate} for name, part, rate in groups]


def objective_from(
    given: Callable[[], WorldModelObjective] | WorldModelObjective | Mapping[str, Any],
) -> WorldModelObjective:
    """An objective, from what a module was given: itself, a factory, or its description."""
    return given if isinstance(given, WorldModelObjective) else factory_from(given, WorldModelObjective)()


_OF_DYNAMICS = {NOISE: "noise", LOSS_NOISE: "loss_noise"}
"""Name of a draw → the field of `LatentTarget` that hands it to the dynamics."""
