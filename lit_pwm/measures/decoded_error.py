"""Open-loop error in observations that a linear probe decodes: the figure that is fair between encoders."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torchmetrics import Metric

from lit_pwm.batch import Batch, without_padding
from lit_pwm.measures.linear_probe import probe_of_sums, with_one
from lit_pwm.models.world_model import WorldModel
from lit_pwm.options import Count, NonNegative, checked


class DecodedError(Metric):
    """Squared error of observations decoded from latents after k open-loop steps, relative to their variance.

    Latent errors of two world models cannot be compared: each is relative to its own encoder, and slow latents make
    small errors. Here a linear probe for each task from encoded latents to standardised observations, fitted on the
    held-out slices themselves, decodes the predicted latents; 1 is what the mean observation scores, and step 0 shows
    what the encoder lost. Predictions of a world model that samples are averaged over `samples` rollouts.

    Only sums of second moments are kept and added over ranks; the memory is that of N (K + 1) matrices of
    latent_dim².

    Args:
        task_names: the world model's tasks.
        latent_dim: width of the latent.
        obs_dim: padded width of the observation.
        steps: the k to report; those beyond the slices' horizon are left out.
        samples: rollouts to average.
        ridge: penalty, as a fraction of the latents' mean variance.
        dtype: of the sums, see `lit_pwm.models.accumulation.accumulation_dtype`.
    """

    full_state_update = False
    count: Tensor  # [N, 1 + K]
    pp: Tensor  # [N, 1 + K, Z + 1, Z + 1], of predicted latents and a one; column 0 is of encoded latents
    po: Tensor  # [N, 1 + K, Z + 1, O]
    o: Tensor  # [N, 1 + K, O]
    oo: Tensor  # [N, 1 + K]

    @checked
    def __init__(
        self,
        task_names: Sequence[str],
        latent_dim: Count,
        obs_dim: Count,
        steps: Sequence[Count] = (1, 4, 16),
        samples: Count = 1,
        ridge: NonNegative = 1e-3,
        dtype: torch.dtype = torch.float64,
    ) -> None:
        super().__init__()
        self.task_names, self.steps, self.samples, self.ridge = tuple(task_names), tuple(steps), samples, ridge
        lead, width = (len(self.task_names), 1 + len(self.steps)), latent_dim + 1
        for name, shape in {
            "count": (),
            "pp": (width, width),
            "po": (width, obs_dim),
            "o": (obs_dim,),
            "oo": (),
        }.items():
            self.add_state(name, torch.zeros(*lead, *shape, dtype=dtype), dist_reduce_fx="sum")

    @torch.no_grad()
    def update(self, world_model: WorldModel, batch: Batch) -> None:
        """Add a batch of slices `obs [H+1, B, O]`, `action [H, B, A]`, `task [B]`.

        Observations count up to the episode's end (`valid`), predictions where the observation was recorded too
        (`consistent`).
        """
        batch = without_padding(batch)
        actions, task = batch["action"], batch["task"]
        valid, consistent = batch.get("valid"), batch.get("consistent")
        there = torch.ones_like(batch["obs"][..., 0], dtype=torch.bool)
        if valid is not None:
            there[1:] = valid
        truth = world_model.encode(batch["obs"], task)
        observed = world_model.standardise(batch["obs"], task)
        runs = [world_model.rollout(truth[0], actions, task)[0] for _ in range(self.samples)]
        predicted = torch.stack(runs).mean(0)
        for row in task.unique().tolist():
            mine = task == row
            self._add(row, 0, truth[there & mine], observed[there & mine])
            for column, k in enumerate(self.steps, start=1):
                if k <= len(actions):
                    counted = mine if consistent is None else mine & consistent[k - 1]
                    self._add(row, column, predicted[k, counted], observed[k, counted])

    def _add(self, row: int, column: int, latents: Tensor, observed: Tensor) -> None:
        x = with_one(latents, self.pp.dtype)
        o = observed.to(self.pp.dtype)
        self.count[row, column] += len(x)
        self.pp[row, column] += x.T @ x
        self.po[row, column] += x.T @ o
        self.o[row, column] += o.sum(0)
        self.oo[row, column] += o.square().sum()

    def compute(self) -> dict[str, Tensor]:
        """`decoded_error_k`, the mean over tasks with data, and `decoded_error_k/TASK`; k = 0 is the probe's own.

        A task whose episodes end too soon for k steps, or for observations that differ there, has no such entry.
        """
        # On the CPU: the systems are small, and solved once in a validation.
        sums = {name: getattr(self, name).cpu().double() for name in ("count", "pp", "po", "o", "oo")}
        table = {
            name: self._errors({key: value[row] for key, value in sums.items()})
            for row, name in enumerate(self.task_names)
            if sums["count"][row, 0] > 0
        }
        keys = dict.fromkeys(key for errors in table.values() for key in errors)
        means = {key: torch.stack([own[key] for own in table.values() if key in own]).mean() for key in keys}
        own = {f"{key}/{name}": value for name, errors in table.items() for key, value in errors.items()}
        return {key: value.float().to(self.device) for key, value in (means | own).items()}

    def _errors(self, sums: dict[str, Tensor]) -> dict[str, Tensor]:
        """Of one task, by key, from the sums of its columns."""
        probe, errors = probe_of_sums(sums["pp"][0], sums["po"][0], self.ridge).matrix, {}
        for column, k in enumerate((0, *self.steps)):
            count, pp, po, o, oo = (sums[name][column] for name in ("count", "pp", "po", "o", "oo"))
            spread = oo - o.square().sum() / count
            if count > 0 and spread > 1e-10 * oo:
                explained = 2 * (probe * po).sum() - (probe * (pp @ probe)).sum()
                errors[f"decoded_error_{k}"] = (oo - explained) / spread
        return errors
