"""A trained policy as one acts with it: observation in, action out, for environments and collecting."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from lit_pwm.errors import LitPWMError, did_you_mean
from lit_pwm.models.actors import Actor
from lit_pwm.models.component import Component
from lit_pwm.models.world_model import WorldModel

_ROWS = 16
"""Rows of every inference batch. A matrix product's rounding may depend on its shape, so with a fixed one an episode's
return does not depend on how many others are evaluated beside it."""


class Policy(nn.Module):
    """A world model's encoder and an actor.

    Args:
        world_model: encodes observations; its `task_names` are the policy's vocabulary.
        actor: chooses actions from latents.
        trained_tasks: the tasks it was trained for.
        critic: the critics that were trained with it, functions of latents and task ids; None where there are none.
        target_critic: their target network (Polyak average); None likewise.
    """

    def __init__(
        self,
        world_model: WorldModel,
        actor: Actor,
        trained_tasks: tuple[str, ...],
        critic: Component | None = None,
        target_critic: Component | None = None,
    ) -> None:
        super().__init__()
        self.world_model, self.actor, self.trained_tasks = world_model, actor, trained_tasks
        self.critic, self.target_critic = critic, target_critic

    @property
    def task_names(self) -> tuple[str, ...]:
        """The tasks the world model knows, in the order of task ids."""
        return self.world_model.task_names

    @torch.no_grad()
    def act(self, obs: np.ndarray, task: str, deterministic: bool = True) -> np.ndarray:
        """Actions for observations of one task.

        Args:
            obs: unpadded observations [B, obs_dim of the task].
            task: the task's name.
            deterministic: act without noise, as evaluations do.

        Returns:
            Unpadded actions [B, action_dim of the task], float32.

        Raises:
            LitPWMError: the world model does not know the task, or the observation has another width.
        """
        world_model = self.world_model
        if task not in world_model.tasks:
            raise LitPWMError(
                f"The policy's world model does not know the task {task!r}. {did_you_mean(task, self.task_names)}"
            )
        obs_dim, action_dim = world_model.tasks[task]
        if obs.ndim != 2 or obs.shape[1] != obs_dim:
            raise LitPWMError(
                f"Observations of {task!r} have shape [B, {obs_dim}], but the policy was given {list(obs.shape)}. "
                f"Pass unpadded observations, one row for each environment."
            )
        device = world_model.obs_mean.device
        task_id = torch.full((_ROWS,), self.task_names.index(task), device=device)
        chunks = []
        for start in range(0, len(obs), _ROWS):
            rows = obs[start : start + _ROWS]
            padded = np.zeros((_ROWS, world_model.obs_dim), np.float32)
            padded[: len(rows), :obs_dim] = rows
            action: Tensor = self.actor(
                world_model.encode(torch.from_numpy(padded).to(device), task_id), task_id, deterministic
            )
            chunks.append(action[: len(rows), :action_dim].cpu().numpy())
        return np.concatenate(chunks)
