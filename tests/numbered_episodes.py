"""Episodes whose every number says where it belongs: episode e, row t."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from datamodules.importers.importer import ImportedEpisode, ImportedTask, Plan
from datamodules.plan_writing import Output, write_stores

TASKS = {"cartpole-swingup": (5, 1), "walker-walk": (24, 6), "cup-catch": (8, 2)}


def episode(number: int, length: int, dims: tuple[int, int]) -> dict[str, np.ndarray]:
    """Arrays whose entry 0 is episode and step: obs 1000 e + t, action -(1000 e + t) / 2²⁰, reward e + t / 1000."""
    t = np.arange(length + 1, dtype=np.float32)
    obs = np.random.default_rng(number).normal(size=(length + 1, dims[0])).astype(np.float32)
    action = np.random.default_rng(number + 10**6).uniform(-1, 1, (length, dims[1])).astype(np.float32)
    obs[:, 0], action[:, 0] = 1000 * number + t, -(1000 * number + t[:-1]) / 2**20
    return {"obs": obs, "action": action, "reward": number + t[:-1] / 1000}


def write_ends(path: Path, episodes: Sequence[tuple[str, int, bool, bool]], first: int = 0) -> str:
    """A store of episodes (task, length, terminated, last_obs_known), numbered from `first` on; returns its path."""

    def read(numbers: np.ndarray) -> Iterator[ImportedEpisode]:
        for number in numbers.tolist():
            task, length, terminated, known = episodes[number]
            rows = episode(first + number, length, TASKS[task])
            if not known:
                rows["obs"][-1] = rows["obs"][-2]
            yield ImportedEpisode(**rows, terminated=terminated, last_obs_known=known)

    tasks = {name: ImportedTask(*dims) for name, dims in TASKS.items()}
    length, task = (
        np.array(column) for column in zip(*((e[1], list(TASKS).index(e[0])) for e in episodes), strict=True)
    )
    plan = Plan(tasks, length, task, ["test"] * len(episodes), read, action_repeat=2, files=[])
    write_stores([Output(path, plan, np.arange(len(episodes)), {})], progress=False)
    return str(path)
