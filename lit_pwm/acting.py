"""Whatever acts in the real environments: the protocol, and the policy that knows nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol
from zlib import crc32

import numpy as np

from lit_pwm.tasks.registry import registered_tasks, task_spec


class Policy(Protocol):
    """What can be evaluated: observations in, actions out, as numpy arrays."""

    @property
    def task_names(self) -> tuple[str, ...]:
        """The tasks it can act in."""
        ...

    def act(self, obs: np.ndarray, task: str, deterministic: bool = True) -> np.ndarray:
        """Actions [B, action_dim of the task] for unpadded observations [B, obs_dim of the task] of one task."""
        ...


class RandomPolicy:
    """Actions uniform in [-1, 1]: the baseline that knows nothing.

    Each row of a batch draws from its own stream for each task, so that its actions do not depend on how many rows
    there are beside it, nor on the order of tasks. A fresh one is needed to repeat an evaluation.

    Args:
        seed: of the streams.
        task_names: the tasks it claims to act in; all registered ones if not given.
    """

    def __init__(self, seed: int = 0, task_names: Sequence[str] | None = None) -> None:
        self.seed = seed
        self.task_names = registered_tasks() if task_names is None else tuple(task_names)
        self._streams: dict[tuple[str, int], np.random.Generator] = {}

    def act(self, obs: np.ndarray, task: str, deterministic: bool = True) -> np.ndarray:
        """Uniform actions [B, action_dim of the task], float32; `deterministic` changes nothing."""
        width = task_spec(task).action_dim
        return np.stack([self._stream(task, row).uniform(-1, 1, width) for row in range(len(obs))]).astype(np.float32)

    def _stream(self, task: str, row: int) -> np.random.Generator:
        if (task, row) not in self._streams:
            self._streams[task, row] = np.random.default_rng([self.seed, crc32(task.encode()), row])
        return self._streams[task, row]
