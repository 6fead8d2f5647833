"""Whatever acts in the real environments: the protocol, and the policy that knows nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol
from zlib import crc32

import numpy as np

from lit_pwm.errors import LitPWMError
from lit_pwm.tasks.registry import registered_tasks, task_spec

ROWS = 16
"""Rows of every batch of observations that a policy under evaluation is given; the episode of seed s is row s mod 16.

A matrix product's rounding may depend on its shape and on the row, so both are settled by the seed alone.
"""


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

    Each row of a batch draws from its own stream for each task, so that its actions depend neither on the rows beside
    it nor on the order of tasks. The streams go on from one episode to the next: a new one repeats an evaluation.

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


def act_for_seeds(
    policy: Policy, task: str, obs: np.ndarray, seeds: Sequence[int], deterministic: bool = True
) -> np.ndarray:
    """A policy's actions in the episodes of these environment seeds, each the same whichever others are asked for.

    Args:
        policy: acts.
        task: the task of all episodes.
        obs: observations [N, obs_dim], N at most 16.
        seeds: of the N episodes, each in a row of its own: no two of them equal modulo 16.
        deterministic: act without noise.

    Returns:
        Actions [N, action_dim].

    Raises:
        LitPWMError: the policy gave actions of another shape, or such that are not finite.
    """
    rows, width = [seed % ROWS for seed in seeds], task_spec(task).action_dim
    batch = np.zeros((ROWS, obs.shape[1]), np.float32)
    batch[rows] = obs
    actions = np.asarray(policy.act(batch, task, deterministic))
    if actions.shape != (ROWS, width):
        raise LitPWMError(
            f"A policy under evaluation was given {ROWS} observations of {task!r} and gave actions of shape "
            f"{list(actions.shape)}; its act() must return shape [{ROWS}, {width}]."
        )
    if not np.isfinite(actions[rows]).all():
        raise LitPWMError(
            f"A policy under evaluation gave actions of {task!r} that are not finite. Its training has probably "
            f"diverged: evaluate an earlier checkpoint, or train it anew with a lower learning rate."
        )
    return actions[rows]
