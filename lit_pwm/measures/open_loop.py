"""How well a world model predicts held-out episodes open loop, beside predictors that know nothing of dynamics."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torchmetrics import Metric

from lit_pwm.batch import Batch, without_padding
from lit_pwm.models.world_model import WorldModel
from lit_pwm.options import Count, checked


class OpenLoopError(Metric):
    """Latent and reward error after k open-loop steps, relative to the variance of what is predicted.

    For each task and each k: the model's squared error of the latent z_k and of the reward r_{k−1} that the k-th action
    earns; the same of the copy-last predictor, which leaves the latent where it was (its reward is the model's, decoded
    from z_0 and the k-th action). All are divided by the variance over the held-out data, which is the squared error of
    the mean predictor: that one scores 1 by construction, and a model below the copy-last predictor and below 1 has
    learned something. Sums are added over ranks.

    Args:
        task_names: the world model's tasks.
        latent_dim: width of the latent.
        steps: the k to report; those beyond the validation slices' horizon are left out.
        dtype: of the sums, see `lit_pwm.models.accumulation.accumulation_dtype`.
    """

    full_state_update = False
    # States, declared for type checkers: [N, K], and the last two [N, K, Z].
    count: Tensor
    known: Tensor
    latent: Tensor
    latent_copy: Tensor
    reward: Tensor
    reward_copy: Tensor
    residual: Tensor
    r: Tensor
    r_squared: Tensor
    z: Tensor
    z_squared: Tensor
    _sums = ("count", "known", "latent", "latent_copy", "reward", "reward_copy", "residual", "r", "r_squared")

    @checked
    def __init__(
        self,
        task_names: Sequence[str],
        latent_dim: Count,
        steps: Sequence[Count] = (1, 4, 16),
        dtype: torch.dtype = torch.float64,
    ) -> None:
        super().__init__()
        self.task_names, self.steps = tuple(task_names), tuple(steps)
        shape = (len(self.task_names), len(self.steps))
        for name in self._sums:
            self.add_state(name, torch.zeros(shape, dtype=dtype), dist_reduce_fx="sum")
        for name in ("z", "z_squared"):
            self.add_state(name, torch.zeros(*shape, latent_dim, dtype=dtype), dist_reduce_fx="sum")

    @torch.no_grad()
    def update(self, world_model: WorldModel, batch: Batch) -> None:
        """Add a batch of slices `obs [H+1, B, O]`, `action [H, B, A]`, `reward [H, B]`, `task [B]`.

        A step counts where it is `valid`, and its latent where the observation was recorded too (`consistent`).
        """
        batch = without_padding(batch)
        actions, task = batch["action"], batch["task"]
        valid, consistent = batch.get("valid"), batch.get("consistent")
        truth = world_model.encode(batch["obs"], task)
        latents, rewards = world_model.rollout(truth[0], actions, task)
        for column, k in enumerate(self.steps):
            if k > len(actions):
                continue
            reward, predicted = batch["reward"][k - 1], rewards[k - 1]
            held = world_model.reward(truth[0], actions[k - 1], task)
            everything = torch.ones_like(reward)
            counted = everything if valid is None else valid[k - 1].to(reward.dtype)
            known = everything if consistent is None else consistent[k - 1].to(reward.dtype)
            self._add("count", column, task, counted)
            self._add("known", column, task, known)
            self._add("latent", column, task, known * (latents[k] - truth[k]).square().mean(-1))
            self._add("latent_copy", column, task, known * (truth[0] - truth[k]).square().mean(-1))
            self._add("reward", column, task, counted * (predicted - reward).square())
            self._add("reward_copy", column, task, counted * (held - reward).square())
            self._add("residual", column, task, counted * (predicted - reward))
            self._add("r", column, task, reward)
            self._add("r_squared", column, task, reward.to(self.r_squared.dtype).square())
            z = known[:, None] * truth[k]
            self._add("z", column, task, z)
            self._add("z_squared", column, task, z.to(self.z_squared.dtype).square())

    def _add(self, name: str, column: int, task: Tensor, values: Tensor) -> None:
        sums: Tensor = getattr(self, name)
        sums[:, column].index_add_(0, task, values.to(sums.dtype))

    def per_task(self) -> dict[str, dict[str, float]]:
        """For each task with data: the same entries as `compute`, of that task alone. Call on synchronised state."""
        table = {key: values.tolist() for key, values in self._ratios().items()}
        seen = (self.count > 0).any(1).tolist()
        return {
            name: {key: values[row] for key, values in table.items() if values[row] == values[row]}
            for row, name in enumerate(self.task_names)
            if seen[row]
        }

    def compute(self) -> dict[str, Tensor]:
        """Means over tasks of each relative error.

        Keys: `latent_error_k`, `latent_error_copy_last_k`, `latent_variance_k`, `reward_error_k`,
        `reward_error_copy_last_k`, `reward_explained_variance_k`. Tasks whose reward never varied have no reward entry.
        """
        means = {key: values.nanmean() for key, values in self._ratios().items()}
        return {key: value.float() for key, value in means.items() if not value.isnan()}

    def _ratios(self) -> dict[str, Tensor]:
        """Each entry for each task [N]; not a number where there is no data or no variance."""
        count, known = (seen.masked_fill(seen == 0, torch.nan) for seen in (self.count, self.known))
        latent_variance = (self.z_squared / known[..., None] - (self.z / known[..., None]).square()).mean(-1)
        reward_variance = self.r_squared / count - (self.r / count).square()
        latent_scale = latent_variance.masked_fill(~(latent_variance > 1e-12), torch.nan)
        reward_scale = reward_variance.masked_fill(~(reward_variance > 1e-10), torch.nan)
        residual_variance = self.reward / count - (self.residual / count).square()
        columns = {
            "latent_error": self.latent / known / latent_scale,
            "latent_error_copy_last": self.latent_copy / known / latent_scale,
            "latent_variance": latent_variance,
            "reward_error": self.reward / count / reward_scale,
            "reward_error_copy_last": self.reward_copy / count / reward_scale,
            "reward_explained_variance": 1 - residual_variance / reward_scale,
        }
        return {f"{name}_{k}": table[:, i] for name, table in columns.items() for i, k in enumerate(self.steps)}
