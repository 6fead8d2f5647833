"""One episode, as a store hands it out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Episode:
    """One episode of T actions, in the true widths of its task.

    Attributes:
        task: the task's name.
        obs: observations, float32 [T+1, O].
        action: actions, float32 [T, A].
        reward: rewards, float32 [T].
        terminated: whether it ended by termination rather than by its time limit.
        source: what acted.
        last_obs_known: whether the last observation is one that was recorded; else it repeats the one before it.
    """

    task: str
    obs: np.ndarray
    action: np.ndarray
    reward: np.ndarray
    terminated: bool
    source: str
    last_obs_known: bool = True

    def __len__(self) -> int:
        """The number of actions T."""
        return len(self.reward)
