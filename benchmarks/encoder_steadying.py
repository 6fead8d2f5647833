"""Two ways to keep an encoder from collapsing that the formulation study tried: a slow target encoder, and SIGReg.

Neither bettered the flow (docs/flow_dynamics.md), and neither is in lit_pwm. They are an objective that pre-training
takes by its class, from the checkout's folder:

    lit-pwm fit ... --model.objective benchmarks.encoder_steadying.SteadiedObjective --model.objective.sigreg_coef 0.1
"""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from lit_pwm.batch import Batch
from lit_pwm.errors import LitPWMError
from lit_pwm.losses import WorldModelObjective
from lit_pwm.models.world_model import WorldModel
from lit_pwm.options import Fraction, NonNegative, Rate


class SteadiedObjective(WorldModelObjective):
    """TD-MPC2's loss with targets of an averaged encoder and a term that keeps the encoder's outputs normal.

    SIGReg looks at a batch as a whole, so what it gives depends on how a batch is split: several ranks are refused.

    Args:
        rho: weight of later steps.
        consistency_coef: weight of the dynamics' loss.
        coefficients: weights of heads' losses, by name.
        target_encoder_rate: fraction by which the encoder of targets (an EMA, with the task embeddings) follows the
            trained one after each update; 1 is TD-MPC2's, whose targets are encoded by the trained encoder itself.
        sigreg_coef: weight of `sigreg` over 64 random directions, of the encoder's outputs before SimNorm.
    """

    def __init__(
        self,
        rho: Fraction = 0.99,
        consistency_coef: NonNegative = 20.0,
        coefficients: dict[str, NonNegative] | None = None,
        target_encoder_rate: Rate = 1.0,
        sigreg_coef: NonNegative = 0.0,
    ) -> None:
        super().__init__(rho, consistency_coef, coefficients)
        self.target_encoder_rate, self.sigreg_coef = target_encoder_rate, sigreg_coef

    @property
    def init_args(self) -> dict[str, object]:
        """The options this was built with."""
        own = {"target_encoder_rate": self.target_encoder_rate, "sigreg_coef": self.sigreg_coef}
        return super().init_args | own

    def attach(self, world_model: WorldModel) -> None:
        """Copy the encoder and the task embeddings."""
        if self.target_encoder_rate != 1:
            parts = {"encoder": world_model.encoder, "task_embedding": world_model.task_embedding}
            self.target_encoder = nn.ModuleDict({name: copy.deepcopy(part) for name, part in parts.items()})
            self.target_encoder.requires_grad_(False)

    def followers(self, world_model: WorldModel) -> list[tuple[nn.Module, nn.Module, float]]:
        """The copies."""
        if self.target_encoder_rate == 1:
            return []
        return [
            (part, getattr(world_model, name), self.target_encoder_rate) for name, part in self.target_encoder.items()
        ]

    def targets(self, world_model: WorldModel, batch: Batch) -> Tensor:
        """What the slow encoder says of the next observations [H, B, Z]."""
        if self.target_encoder_rate == 1:
            return super().targets(world_model, batch)
        obs, task = batch["obs"][1:], batch["task"].expand(batch["obs"].shape[:2])[1:]
        embedding = self.target_encoder["task_embedding"](task)
        return self.target_encoder["encoder"](world_model.standardise(obs, task), embedding)

    def extra_terms(self, world_model: WorldModel, batch: Batch, noise: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """SIGReg of the first observations."""
        if not self.sigreg_coef:
            return {}
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            raise LitPWMError(
                "SIGReg (sigreg_coef) is a statistic of a whole batch, and on several ranks each has a part of it. "
                "Train on one device, or leave sigreg_coef out."
            )
        logits = world_model.encode_logits(batch["obs"][0], batch["task"])
        directions = nn.functional.normalize(torch.randn(logits.shape[-1], 64, device=logits.device), dim=0)
        return {"sigreg": self.sigreg_coef * sigreg(logits, directions)}


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
