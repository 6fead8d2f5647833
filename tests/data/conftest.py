"""Stores whose every number says where it belongs: episode e, row t."""

from collections.abc import Callable, Sequence
from pathlib import Path

import h5py
import pytest
from numbered_episodes import TASKS, episode

from datamodules import EpisodeWriter
from datamodules.layout import ATTRIBUTES, EPISODE_COLUMNS, ROW_COLUMNS


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
