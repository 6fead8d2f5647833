"""Rolling episodes in the real environments, in one process."""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from datamodules.behaviours import Behaviour, make_behaviour
from datamodules.incoming import checked_rows
from datamodules.shards import Shard, new_shard
from lit_pwm.tasks import TaskSpec
from lit_pwm.tasks.spec import DIVERGED

if TYPE_CHECKING:
    from lit_pwm.tasks.environment import TaskEnv

EPISODE_KEYS = 2**32
"""Room for the keys of a task's episodes in the shards: episode i of task n has key n * EPISODE_KEYS + i."""


def start_seed(seed: int, task: str, number: int) -> int:
    """The environment's seed from which an episode of a task starts, by the seed of all."""
    return int(_seeds(seed, task, number)[0].generate_state(1)[0])


def _seeds(seed: int, task: str, number: int) -> list[np.random.SeedSequence]:
    """Of the environment and of the behaviour, in an episode."""
    return np.random.SeedSequence([seed, zlib.crc32(task.encode()), number]).spawn(2)


@dataclass(frozen=True)
class Work:
    """Some episodes of one task.

    Attributes:
        spec: the task, itself rather than its name: a worker process may not know a task that was registered here.
        task: its index in the store.
        numbers: which episodes.
        clamp_rewards: clamp rewards beyond the range of a model's bins instead of refusing them.
    """

    spec: TaskSpec
    task: int
    numbers: tuple[int, ...]
    clamp_rewards: bool = False


@dataclass(frozen=True)
class Diverged:
    """An episode whose simulation diverged; it is left out, because its last rows would be huge before that.

    Attributes:
        task: the task's name.
        number: of the episode.
        seed: the environment's.
        step: at which it diverged, from 0 on.
        reason: what was found.
    """

    task: str
    number: int
    seed: int
    step: int
    reason: str


@dataclass(frozen=True)
class Rolled:
    """What became of some work.

    Attributes:
        count: episodes that were begun.
        diverged: those of them that diverged.
    """

    count: int
    diverged: tuple[Diverged, ...] = ()


class Collector:
    """Rolls episodes and appends them to a shard; there is one in each process.

    Args:
        behaviour: name of the behaviour.
        seed: of everything; episode i of a task depends on the seed, the task's name and i alone.
        folder: where shards lie.
        tasks: that are collected.
    """

    def __init__(self, behaviour: str, seed: int, folder: Path, tasks: Sequence[str]) -> None:
        self._behaviour: Behaviour = make_behaviour(behaviour, tasks)
        self._seed = seed
        self._shard: Shard = new_shard(folder)
        self._envs: dict[tuple[str, int], TaskEnv] = {}

    def collect(self, work: Work) -> Rolled:
        """Roll the episodes and append those that do not diverge."""
        lockstep, diverged = self._behaviour.lockstep, []
        self._clamp_rewards = work.clamp_rewards
        for block, numbers in itertools.groupby(work.numbers, lambda number: number // lockstep):
            diverged += self._roll(work.spec, work.task, block, list(numbers))
        return Rolled(len(work.numbers), tuple(diverged))

    def _roll(self, spec: TaskSpec, task: int, block: int, numbers: list[int]) -> list[Diverged]:
        """Roll episodes of one block in lockstep; returns those that diverged.

        An episode always has the same place in its block, also when others of the block are there already, because in a
        policy's matrix products a row's rounding may depend on its place.
        """
        size, length = self._behaviour.lockstep, spec.episode_length
        seeds = [_seeds(self._seed, spec.name, block * size + place) for place in range(size)]
        generators = [np.random.Generator(np.random.Philox(drawn)) for _, drawn in seeds]
        self._behaviour.reset(spec.name, spec.action_dim, length, generators)
        obs = np.zeros((length + 1, size, spec.obs_dim), np.float32)
        action = np.zeros((length, size, spec.action_dim), np.float32)
        reward = np.zeros((length, size), np.float32)
        ends = np.zeros(size, np.int64)
        terminated = np.zeros(size, bool)
        running = {number % size: self._env(spec, number % size) for number in numbers}
        starts = [start_seed(self._seed, spec.name, block * size + place) for place in range(size)]
        diverged: dict[int, Diverged] = {}
        for place, env in running.items():
            obs[0, place], _ = env.reset(seed=starts[place])
        for step in range(length):
            action[step] = self._behaviour.act(obs[step], step)
            for place, env in list(running.items()):
                obs[step + 1, place], reward[step, place], terminated[place], over, info = env.step(action[step, place])
                if DIVERGED in info:
                    number = block * size + place
                    diverged[number] = Diverged(spec.name, number, starts[place], step, info[DIVERGED])
                if terminated[place] or over:
                    ends[place] = step + 1
                    del running[place]
            if not running:
                break
        dims = {spec.name: (spec.obs_dim, spec.action_dim)}
        for number in (number for number in numbers if number not in diverged):
            place, source = number % size, self._behaviour.source
            end, ended = int(ends[place]), bool(terminated[place])
            arrays = obs[: end + 1, place], action[:end, place], reward[:end, place]
            where = f"episode {number}"
            rows = checked_rows(dims, spec.name, *arrays, ended, source, where, self._clamp_rewards)
            self._shard.append(task * EPISODE_KEYS + number, task, rows, ended, source)
        return list(diverged.values())

    def _env(self, spec: TaskSpec, place: int) -> TaskEnv:
        key = (spec.name, place)
        if key not in self._envs:
            from lit_pwm.tasks.environment import make_env  # loads a simulator

            self._envs[key] = make_env(spec)
        return self._envs[key]

    def close(self) -> None:
        """Close the shard."""
        self._shard.close()
