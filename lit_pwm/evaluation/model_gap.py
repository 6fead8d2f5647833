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

from lit_pwm.imagination import Imagined, imagine
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

    Of a world model with a continuation head, `steps` times the mean reward of a step that is made: Σ w r / Σ w over
    steps and starts, where w is P(the episode has not ended before the step). In imagination w = Π_{k<t} c_k; in the
    environment w is 1 up to a termination and 0 beyond.

    Attributes:
        imagined: what the world model predicts for the deterministic policy over `steps` steps.
        real: what the policy earned in the environment in the same steps.
        starts: how many visited states were compared.
        steps: the number of steps.
        survived: Σ w / `steps` of `imagined` and of `real`, their weights in means over several; `starts` if not given.
    """

    imagined: float
    real: float
    starts: int
    steps: int = STEPS
    survived: tuple[float, float] | None = None

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
    weights = [gap.survived or (gap.starts, gap.starts) for gap in gaps]
    totals = [sum(weight[side] for weight in weights) for side in (0, 1)]
    imagined, real = (
        sum(getattr(gap, name) * weight[side] for gap, weight in zip(gaps, weights, strict=True)) / totals[side]
        for side, name in enumerate(("imagined", "real"))
    )
    kept = None if all(gap.survived is None for gap in gaps) else (totals[0], totals[1])
    return ModelGap(imagined, real, starts, survived=kept)


def imagined_rewards(policy: Policy, task: str, obs: np.ndarray, steps: int, seed: int = 0) -> np.ndarray:
    """Rewards in environment units [H, N] that the world model predicts for the deterministic policy (`imagined`)."""
    return imagined(policy, task, obs, steps, seed).rewards.cpu().numpy()


@torch.no_grad()
def imagined(policy: Policy, task: str, obs: np.ndarray, steps: int, seed: int = 0) -> Imagined:
    """What the world model predicts for the deterministic policy.

    Args:
        policy: acts, in its own world model.
        task: the task.
        obs: unpadded observations [N, obs_dim] to start from.
        steps: H.
        seed: of world models that sample.

    Returns:
        The rollout, with rewards in environment units [H, N].
    """
    model = policy.world_model
    device = model.obs_mean.device
    padded = torch.zeros(len(obs), model.obs_dim, device=device)
    padded[:, : obs.shape[1]] = torch.from_numpy(np.asarray(obs, np.float32)).to(device)
    task_id = torch.full((len(obs),), policy.task_names.index(task), device=device)
    noise = torch.zeros(steps, len(obs), model.action_dim, device=device)
    seed_noise(model, seed)
    z = model.encode(padded, task_id)
    return imagine(model, policy.actor, z, task_id, noise, "raw", deterministic=True)


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
        self._terminated: list[np.ndarray] = []

    def add(
        self, obs: np.ndarray, rewards: np.ndarray, running: np.ndarray, terminated: np.ndarray | None = None
    ) -> None:
        """A step of all episodes.

        Args:
            obs: observations before it [N, obs_dim].
            rewards: [N].
            running: which episodes took it [N].
            terminated: which of them it ended by termination [N]; none if not given.
        """
        if len(self._rewards) % EVERY == 0:
            self._starts.append(obs.copy())
        self._rewards.append(np.where(running, rewards, np.nan))
        self._terminated.append(running & (False if terminated is None else terminated))

    def discard(self, episodes: np.ndarray) -> None:
        """Forget some of the episodes, a mask [N]: those whose simulation diverged."""
        for rewards in self._rewards:
            rewards[episodes] = np.nan

    def compare(self) -> ModelGap:
        """Imagine from the collected states; those too near to an episode's end are left out.

        Where the world model has a continuation head, a termination is no such end: what it cut short counts.
        """
        knows_ends = self.policy.world_model.continuation_head is not None
        rewards, terminated = np.array(self._rewards), np.array(self._terminated)
        starts, returns, made = [], [], []
        for number, obs in enumerate(self._starts):
            steps = slice(number * EVERY, number * EVERY + STEPS)
            earned = rewards[steps]
            earned = np.pad(earned, ((0, STEPS - len(earned)), (0, 0)), constant_values=np.nan)
            compared = ~np.isnan(earned).any(0)
            if knows_ends:
                compared |= ~np.isnan(earned[0]) & terminated[steps].any(0)
            starts.append(obs[compared])
            returns.append(earned.sum(0)[compared])
            made.append(earned[:, compared])
        chosen = np.concatenate(starts)
        if not len(chosen):
            return ModelGap(0.0, 0.0, 0)
        rollout = imagined(self.policy, self.task, chosen, STEPS)
        if rollout.survival is not None:
            return _by_survival(rollout, np.concatenate(made, axis=1))
        promised = rollout.rewards.cpu().numpy().sum(0, dtype=np.float64)
        return ModelGap(float(promised.mean()), float(np.concatenate(returns).mean()), len(chosen))


def _by_survival(rollout: Imagined, made: np.ndarray) -> ModelGap:
    """The gap over the steps that are made; `made` holds real rewards [H, N], not a number beyond a termination."""
    promised, survival = (float(value.double()) for value in rollout.counted())
    steps, count = made.shape
    lived = int((~np.isnan(made)).sum())
    return ModelGap(
        steps * promised / survival, steps * float(np.nansum(made)) / lived, count,
        survived=(survival / steps, lived / steps),
    )  # fmt: skip
