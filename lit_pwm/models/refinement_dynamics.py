"""Weight-tied iterative refinement of a prediction: the control that flow dynamics must beat."""

from __future__ import annotations

import torch
from torch import Tensor

from lit_pwm.models.conditioned_field import ConditionedField
from lit_pwm.models.dynamics import Dynamics, LatentTarget, consistency_error
from lit_pwm.models.layers import LatentWidth, rescaled, simnorm
from lit_pwm.options import Count, CountOrZero, NonNegative


class RefinementDynamics(Dynamics):
    """x_0 = 0, x_{k+1} = x_k + c(f[S(x_k), z, task, a]) for k < K with one f, and the next latent is S(x_K).

    No time, no path, no ODE: K full-size corrections of one estimate. The earlier read-outs S(x_k) are regressed on the
    target too.

    Args:
        latent_dim: width of the latent.
        action_dim: width of the padded action.
        task_dim: width of the task embedding.
        hidden_dim: width of the hidden layers.
        layers: number of hidden layers.
        substeps: K.
        readout_weight: weight of the earlier read-outs' mean error beside the last one's; 0 trains the last alone.
        rescale_inputs: show the network G·z − 1 (G = 8, the group size) instead of simplex entries z.
    """

    width_option = "hidden_dim"

    def __init__(
        self,
        latent_dim: LatentWidth,
        action_dim: Count,
        task_dim: CountOrZero,
        hidden_dim: Count = 512,
        layers: Count = 2,
        substeps: Count = 2,
        readout_weight: NonNegative = 0.5,
        rescale_inputs: bool = True,
    ) -> None:
        super().__init__(latent_dim, action_dim, task_dim)
        self.hidden_dim, self.layers, self.substeps = hidden_dim, layers, substeps
        self.readout_weight, self.rescale_inputs = readout_weight, rescale_inputs
        width, sees_state = latent_dim + task_dim + action_dim, substeps > 1 or not rescale_inputs
        self.field = ConditionedField(latent_dim, width, hidden_dim, layers, sees_state=sees_state)

    def _seen(self, z: Tensor) -> Tensor:
        return rescaled(z) if self.rescale_inputs else z

    def read_outs(self, z: Tensor, action: Tensor, embedding: Tensor) -> list[Tensor]:
        """z [..., Z], action [..., A], embedding [..., E] → the K latents S(x_1) … S(x_K), each [..., Z]."""
        condition = self.field.condition(self._seen(z), embedding, action)
        # S(0) is uniform: rescaled it is zero, and costs no product.
        x = self.field(0.0, None if self.rescale_inputs else self._seen(simnorm(torch.zeros_like(z))), condition)
        latents = [simnorm(x)]
        for k in range(1, self.substeps):
            x = x + self.field(k / self.substeps, self._seen(latents[-1]), condition)
            latents.append(simnorm(x))
        return latents

    def forward(self, z: Tensor, action: Tensor, embedding: Tensor) -> Tensor:
        """z [..., Z], action [..., A], embedding [..., E] → next latent [..., Z]."""
        return self.read_outs(z, action, embedding)[-1]

    def predict_with_loss(
        self, z: Tensor, action: Tensor, embedding: Tensor, target: LatentTarget
    ) -> tuple[Tensor, Tensor]:
        """The next latent, and its squared error plus the weighted mean of the earlier read-outs' errors."""
        *earlier, last = self.read_outs(z, action, embedding)
        loss = consistency_error(last, target.latent)
        for latent in earlier if self.readout_weight else []:
            loss = loss.add(consistency_error(latent, target.latent), alpha=self.readout_weight / len(earlier))
        return last, loss
