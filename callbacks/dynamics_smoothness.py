"""How strongly the predicted latent depends on the latent before it and on the action."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.types import STEP_OUTPUT

from callbacks.measuring import random_streams_kept
from lit_pwm.batch import Batch
from lit_pwm.errors import LitPWMError
from lit_pwm.measures.diagnostics import jacobian_square_norms
from lit_pwm.options import Count, checked
from lit_pwm.policy_learning import PolicyLearning
from lit_pwm.pretraining import WorldModelPretraining


class DynamicsSmoothness(Callback):
    """Logs `diagnostics/dz_dz` and `diagnostics/dz_da`: ‖∂z'/∂z‖ and ‖∂z'/∂a‖ (Frobenius) of one step of the dynamics.

    Both are root mean squares over the states and actions in which the slices of the first validation batch start,
    estimated by random vector-Jacobian products (`lit_pwm.measures.diagnostics.jacobian_square_norms`). Gradients
    through H steps are products of H such Jacobians. For dynamics that sample, the noise is held fixed.

    Training is left as it is. Hook: `on_validation_batch_end`. In checkpoints: when it was last measured.

    Args:
        every_n_updates: least number of updates between measurements, which are made during validations.
        probes: random vectors, each a backward pass through one step.
    """

    @checked
    def __init__(self, every_n_updates: Count = 500, probes: Count = 8) -> None:
        self.every_n_updates, self.probes = every_n_updates, probes
        self._measured_at: int | None = None

    def state_dict(self) -> dict[str, object]:
        """When it was last measured."""
        return {} if self._measured_at is None else {"measured_at": self._measured_at}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Measure again when it is time."""
        self._measured_at = state_dict.get("measured_at")

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: STEP_OUTPUT,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Measure on the first batch, if it is time."""
        if batch_idx or dataloader_idx or trainer.sanity_checking:
            return
        if self._measured_at is not None and trainer.global_step < self._measured_at + self.every_n_updates:
            return
        if not isinstance(pl_module, (WorldModelPretraining, PolicyLearning)):
            raise LitPWMError(
                f"DynamicsSmoothness measures the world models of WorldModelPretraining and PolicyLearning, but the "
                f"Trainer fits a {type(pl_module).__name__}. Remove the callback from trainer.callbacks."
            )
        self._measured_at = trainer.global_step
        world_model, task = pl_module.world_model, batch["task"]
        generator = torch.Generator(pl_module.device).manual_seed(trainer.global_step)
        with random_streams_kept(pl_module.device), trainer.precision_plugin.val_step_context():
            with torch.inference_mode(False), torch.no_grad():
                z, embedding = world_model.encode(batch["obs"][0], task), world_model.task_embedding(task)
            squares = jacobian_square_norms(
                lambda z, action: world_model.dynamics(z, action, embedding),
                (z, batch["action"][0]),
                self.probes,
                generator,
            )
        names = "diagnostics/dz_dz", "diagnostics/dz_da"
        norms = {name: square.mean().sqrt() for name, square in zip(names, squares, strict=True)}
        pl_module.log_dict(norms, batch_size=len(task), sync_dist=True)
