"""Imagined against real return: what a world model promises a policy, and what the policy then earns.

A policy trained inside a model seeks out the model's errors in its own favour: a gap above zero that grows while
training goes on shows that the model is being exploited.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypedDict

import numpy as np
import torch

from lit_pwm.imagination import imagine
from lit_pwm.models.noise import seed_noise
from lit_pwm.models.policy import Policy

STEPS = 16
"""Steps of each comparison: PWM's horizon."""
EVERY = 50
"""Steps of an episode between the states that comparisons start from."""


class GapRecord(TypedDict):
    """A `ModelGap` in JSON."""

    steps: int
    starts: int
    imagined_return: float
    real_return: float
    gap: float


@dataclass(frozen=True)
class ModelGap:
    """Means over starts of undiscounted sums of rewards in environment units.

    Attributes:
        imagined: what the world model predicts for the deterministic policy over `steps` steps.
        real: what the policy earned in the environment in the same steps.
        starts: how many visited states were compared.
        steps: the number of steps.
    """

    imagined: float
    real: float
    starts: int
    steps: int = STEPS

    @property
    def gap(self) -> float:
        """What the model promises too much; negative if too little."""
        return self.imagined - self.real

    def to_json(self) -> GapRecord:
        """Plain values."""
        return {
            "steps": self.steps,
            "starts": self.starts,
            "imagined_return": self.imagined,
            "real_return": self.real,
            "gap": self.gap,
        }


def merge_gaps(gaps: Sequence[ModelGap]) -> ModelGap | None:
    """The gap over all starts together; None if there are none."""
    starts = sum(gap.starts for gap in gaps)
    if not starts:
        return None
    imagined, real = (sum(getattr(gap, name) * gap.starts for gap in gaps) / starts for name in ("imagined", "real"))
    return ModelGap(imagined, real, starts)


@torch.no_grad()
def imagined_rewards(policy: Policy, task: str, obs: np.ndarray, steps: int, seed: int = 0) -> np.ndarray:
    """Rewards that the world model predicts for the deterministic policy.

    Args:
        policy: acts, in its own world model.
        task: the task.
        obs: unpadded observations [N, obs_dim] to start from.
        steps: H.
        seed: of world models that sample.

    Returns:
        Rewards in environment units [H, N].
    """
    model = policy.world_model
    device = model.obs_mean.device
    padded = torch.zeros(len(obs), model.obs_dim, device=device)
    padded[:, : obs.shape[1]] = torch.from_numpy(np.asarray(obs, np.float32)).to(device)
    task_id = torch.full((len(obs),), policy.task_names.index(task), device=device)
    noise = torch.zeros(steps, len(obs), model.action_dim, device=device)
    seed_noise(model, seed)
    z = model.encode(padded, task_id)
    return imagine(model, policy.actor, z, task_id, noise, "raw", deterministic=True).rewards.cpu().numpy()


class VisitedStates:
    """Collects states and rewards of episodes that run side by side, and compares afterwards.

    Args:
        policy: acts in the episodes.
        task: their task.
    """

    def __init__(self, policy: Policy, task: str) -> None:
        self.policy, self.task = policy, task
        self._starts: list[np.ndarray] = []
        self._rewards: list[np.ndarray] = []

    def add(self, obs: np.ndarray, rewards: np.ndarray, running: np.ndarray) -> None:
        """A step of all episodes: observations before it [N, obs_dim], rewards [N], and which episodes took it [N]."""
        if len(self._rewards) % EVERY == 0:
            self._starts.append(obs.copy())
        self._rewards.append(np.where(running, rewards, np.nan))

    def discard(self, episodes: np.ndarray) -> None:
        """Forget some of the episodes, a mask [N]: those whose simulation diverged."""
        for rewards in self._rewards:
            rewards[episodes] = np.nan

    def compare(self) -> ModelGap:
        """Imagine from the collected states; those too near to an episode's end are left out."""
        rewards = np.array(self._rewards)
        starts, real = [], []
        for number, obs in enumerate(self._starts):
            earned = rewards[number * EVERY : number * EVERY + STEPS]
            whole = ~np.isnan(earned).any(0) if len(earned) == STEPS else np.zeros(len(obs), bool)
            starts.append(obs[whole])
            real.append(earned.sum(0)[whole])
        chosen, returns = np.concatenate(starts), np.concatenate(real)
        if not len(chosen):
            return ModelGap(0.0, 0.0, 0)
        imagined = imagined_rewards(self.policy, self.task, chosen, STEPS).sum(0, dtype=np.float64)
        return ModelGap(float(imagined.mean()), float(returns.mean()), len(chosen))
