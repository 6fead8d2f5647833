"""Gradient norms, and how much of the actor's gradient is signal."""

from __future__ import annotations

from typing import Annotated, Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn

from callbacks.measuring import random_streams_kept, write_metrics
from lit_pwm.batch import Batch
from lit_pwm.errors import LitPWMError
from lit_pwm.measures.diagnostics import expected_snr, watching_substeps
from lit_pwm.options import Count, Range, checked
from lit_pwm.policy_learning import PolicyLearning
from lit_pwm.pretraining import WorldModelPretraining


class GradientDiagnostics(Callback):
    """Measures gradients at every so many updates of either module.

    Logs:

    - `diagnostics/gradient_norm/PART`: norm of the gradient of each part of a world model that is trained, of each part
      of the actor, and of the critics (in their first minibatch), before clipping and, under several ranks, before
      averaging;
    - `diagnostics/actor_esnr`: expected signal-to-noise ratio of the actor's gradient in the update
      (`lit_pwm.measures.diagnostics.expected_snr`, unbiased). The batch of B rollouts is split into M microbatches,
      whose gradients are computed one by one; what is logged is M times their ESNR, which is that of their mean, the
      update's gradient. Divided by B it is that of a single rollout. It is noisy, and negative where there is no
      signal;
    - `diagnostics/substep_gradient/tau_T`, for actors with velocity fields: root mean square over rollouts and imagined
      steps of the norm of ∂ℓ/∂x_τ, the gradient of a rollout's loss by the state at which the field was evaluated. Of a
      rollout that neither vanishes nor explodes over substeps all have the same size.

    Training is left as it is: weights, optimizers, statistics and random streams are the same to the bit. Hooks:
    `on_train_batch_start` (the actor's measures, before its update), `on_after_backward`, `on_train_batch_end`. Nothing
    of it is in checkpoints. A measured update costs about two more actor updates.

    Args:
        every_n_updates: updates between measurements.
        microbatches: M, at least 2; as many as rollouts if there are fewer.
    """

    @checked
    def __init__(self, every_n_updates: Count = 50, microbatches: Annotated[int, Range(2)] = 8) -> None:
        self.every_n_updates, self.microbatches = every_n_updates, microbatches
        self._metrics: dict[str, Tensor] = {}
        self._awaited: list[dict[str, nn.Module]] = []

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Measure the actor's gradient if the update to come is to be measured."""
        self._metrics, self._awaited = {}, []
        if (trainer.global_step + 1) % self.every_n_updates:
            return
        self._awaited = _parts_by_backward(pl_module, batch)
        if isinstance(pl_module, PolicyLearning) and len(batch["task"]) > 1:
            with random_streams_kept(pl_module.device), trainer.precision_plugin.train_step_context():
                self._metrics |= self._actor_measures(pl_module, batch, trainer.world_size)

    def on_after_backward(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the norms of the parts whose gradients this backward computed."""
        if self._awaited:
            for name, part in self._awaited.pop(0).items():
                gradients = [p.grad for p in part.parameters() if p.grad is not None and p.numel()]
                if gradients:
                    norm = torch.nn.utils.get_total_norm(gradients)
                    self._metrics[f"diagnostics/gradient_norm/{name}"] = norm

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        """Log."""
        write_metrics(trainer, pl_module, self._metrics)
        self._metrics, self._awaited = {}, []

    def _actor_measures(self, module: PolicyLearning, batch: Batch, ranks: int) -> dict[str, Tensor]:
        task = batch["task"]
        groups = min(self.microbatches, len(task))
        size = len(task) // groups
        parameters = [parameter for parameter in module.actor.parameters() if parameter.numel()]
        with torch.no_grad():
            z = module.world_model.encode(batch["obs"][0], task)
        noise, rows = module.update_noise(len(task)).values(), []
        with watching_substeps(module.actor) as substeps:
            for start in range(0, groups * size, size):
                chosen = slice(start, start + size)
                _, returns = module.imagined_returns(z[chosen], task[chosen], *(draw[:, chosen] for draw in noise))
                loss = module.actor_loss(returns, task[chosen])
                gradients = torch.autograd.grad(loss, parameters, materialize_grads=True)
                rows.append(torch.cat([gradient.flatten() for gradient in gradients]).float())
        measures = {"diagnostics/actor_esnr": groups * ranks * expected_snr(torch.stack(rows))}
        for tau, found in sorted((tau, found) for tau, found in substeps.items() if found):
            # The loss is a mean over the microbatch, so that a rollout's own gradient is `size` times as large.
            per_rollout = torch.stack([(size * gradient).square().sum(-1).mean() for gradient in found])
            measures[f"diagnostics/substep_gradient/tau_{tau:.2f}"] = per_rollout.mean().sqrt()
        return measures


def _parts_by_backward(module: LightningModule, batch: Batch) -> list[dict[str, nn.Module]]:
    """The parts of each backward of an update that is looked at, in order."""
    if isinstance(module, WorldModelPretraining):
        return [module.world_model.parts()]
    if isinstance(module, PolicyLearning):
        steps = module.model_steps
        first = [] if steps is None or steps.due(batch) is None else [module.world_model.parts()]
        actor = {f"actor.{name}": part for name, part in module.actor.named_children()}
        return [*first, actor, {"critic": module.critic}]
    raise LitPWMError(
        f"GradientDiagnostics measures WorldModelPretraining and PolicyLearning, but the Trainer fits a "
        f"{type(module).__name__}. Remove the callback from trainer.callbacks."
    )
