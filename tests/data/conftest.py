"""Stores whose every number says where it belongs: episode e, row t."""

from collections.abc import Callable, Sequence
from pathlib import Path

import h5py
import numpy as np
import pytest

from datamodules import EpisodeWriter
from datamodules.layout import ATTRIBUTES, EPISODE_COLUMNS, ROW_COLUMNS

TASKS = {"cartpole-swingup": (5, 1), "walker-walk": (24, 6), "cup-catch": (8, 2)}


def episode(number: int, length: int, dims: tuple[int, int]) -> dict[str, np.ndarray]:
    """Arrays whose entry 0 is episode and step: obs 1000 e + t, action -(1000 e + t) / 2²⁰, reward e + t / 1000."""
    t = np.arange(length + 1, dtype=np.float32)
    obs = np.random.default_rng(number).normal(size=(length + 1, dims[0])).astype(np.float32)
    action = np.random.default_rng(number + 10**6).uniform(-1, 1, (length, dims[1])).astype(np.float32)
    obs[:, 0], action[:, 0] = 1000 * number + t, -(1000 * number + t[:-1]) / 2**20
    return {"obs": obs, "action": action, "reward": number + t[:-1] / 1000}


def write_store(path: Path, episodes: Sequence[tuple[str, int]], tasks=TASKS, terminated: Sequence[int] = ()) -> Path:
    """A store of the given (task, length) episodes, numbered in order."""
    with EpisodeWriter(path, tasks=tasks) as writer:
        for number, (task, length) in enumerate(episodes):
            arrays = episode(number, length, tasks[task])
            writer.append(task=task, **arrays, terminated=number in terminated, source=f"source {number % 2}")
    return path


@pytest.fixture
def make_store(tmp_path) -> Callable[..., Path]:
    def make(episodes, name="store.h5", **options):
        return write_store(tmp_path / name, episodes, **options)

    return make


@pytest.fixture(scope="session")
def mixed_store(tmp_path_factory) -> Path:
    """Three tasks, 40 episodes of 20 to 59 actions."""
    names = list(TASKS)
    episodes = [(names[i % 3], 20 + (i * 7) % 40) for i in range(40)]
    return write_store(tmp_path_factory.mktemp("mixed") / "mixed.h5", episodes)


@pytest.fixture
def version_1(tmp_path) -> Callable[[Path], Path]:
    """Makes a copy of a store as version 1 has it, without checksums and statistics."""

    def make(path: Path) -> Path:
        old = tmp_path / f"version_1_{path.name}"
        with h5py.File(path) as file, h5py.File(old, "w") as copy:
            for name in ROW_COLUMNS:
                copy[name] = file[name][:]
            for name in EPISODE_COLUMNS[1]:
                copy[f"episode/{name}"] = file[f"episode/{name}"][:]
            for name in ("format", *ATTRIBUTES[1]):
                copy.attrs[name] = file.attrs[name]
            copy.attrs["format_version"] = 1
        return old

    return make
