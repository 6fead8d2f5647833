"""The flow step of Flow-MBPO-PWM's world models, as its files need it; not meant for new ones."""

from __future__ import annotations

import logging
import os
from typing import Literal

import torch
from torch import Tensor, nn

from lit_pwm.flow import FixedStep, integrate
from lit_pwm.models.dynamics import Dynamics
from lit_pwm.models.layers import LatentWidth, NormedLinear, init_tdmpc2_, mlp, simnorm
from lit_pwm.options import Count, CountOrZero

_LOG = logging.getLogger(__name__)
_told: set[str] = set()


class LegacyFlowDynamics(Dynamics):
    """z(1) of dz/dτ = S(v_θ[z, a, τ, task]) from z(0) = z: Flow-MBPO-PWM's dynamics, defect included.

    Its velocity ends in a group softmax S, whose entries are positive and sum to one: each step adds a point of the
    simplex to the latent, so that groups sum to two after it, and to t + 1 after t steps, and what is predicted is no
    latent of the encoder's. It is here so that files of Flow-MBPO-PWM give the outputs they gave there, and warns when
    it is built. `FlowDynamics` is what flows are trained with.

    Args:
        latent_dim: width of the latent.
        action_dim: width of the padded action.
        task_dim: width of the task embedding.
        hidden_dim: width of the hidden layers.
        layers: number of hidden layers.
        method: `heun` or `euler`.
        substeps: K, the number of steps.
    """

    width_option = "hidden_dim"

    def __init__(
        self,
        latent_dim: LatentWidth,
        action_dim: Count,
        task_dim: CountOrZero,
        hidden_dim: Count = 512,
        layers: Count = 2,
        method: Literal["heun", "euler"] = "heun",
        substeps: Count = 4,
    ) -> None:
        super().__init__(latent_dim, action_dim, task_dim)
        self.hidden_dim, self.layers = hidden_dim, layers
        self.solver = FixedStep(method, substeps)
        width = latent_dim + action_dim + 1 + task_dim
        self.net = mlp(width, [hidden_dim] * layers, NormedLinear(hidden_dim, latent_dim, nn.Identity()))
        init_tdmpc2_(self)
        _warn()

    def velocity(self, z: Tensor, action: Tensor, tau: float, embedding: Tensor) -> Tensor:
        """z [..., Z], action [..., A], τ, embedding [..., E] → dz/dτ [..., Z], each group positive and of sum one."""
        time = torch.full_like(z[..., :1], tau)
        return simnorm(self.net(torch.cat([z, action, time, embedding], dim=-1)))

    def forward(self, z: Tensor, action: Tensor, embedding: Tensor) -> Tensor:
        """z [..., Z], action [..., A], embedding [..., E] → z(1) [..., Z], whose groups do not sum to one."""
        return integrate(lambda tau, x: self.velocity(x, action, tau, embedding), z, self.solver)


def _warn() -> None:
    """Once in a process, and of several ranks only on the first."""
    if not _told and os.environ.get("LOCAL_RANK", "0") == "0":
        _LOG.warning(
            "LegacyFlowDynamics reproduces the flow step of Flow-MBPO-PWM, whose velocity ends in a softmax: what it "
            "predicts is no latent of its encoder's (its groups sum to two after one step). It is for models that were "
            "trained so; train new ones with FlowDynamics."
        )
    _told.add("")
