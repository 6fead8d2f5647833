"""Files of other formats, and the oracle whose weights they hold."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from foreign_files import THREE_TASKS, Weights

from datamodules import EpisodeWriter, MultitaskDataModule

ORACLES = Path(__file__).parent.parent / "oracles" / "algorithm"


@pytest.fixture
def saved(tmp_path: Path) -> Callable[..., Path]:
    """Writes a file's content."""

    def save(content: object, name: str = "foreign.pt") -> Path:
        torch.save(content, tmp_path / name)
        return tmp_path / name

    return save


@pytest.fixture(scope="session")
def oracle() -> dict[str, torch.Tensor]:
    """TD-MPC2's 1 M model of MT30, its weights under `model/` and its outputs."""
    with np.load(ORACLES / "tdmpc2_mt30_1m.npz", allow_pickle=False) as file:
        return {key: torch.from_numpy(np.asarray(file[key])) for key in file.files}


@pytest.fixture(scope="session")
def oracle_weights(oracle: dict[str, torch.Tensor]) -> Weights:
    """The weights of the oracle, by TD-MPC2's keys."""
    return {key.removeprefix("model/"): value for key, value in oracle.items() if key.startswith("model/")}


@pytest.fixture(scope="session")
def three_task_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An episode store of `THREE_TASKS`."""
    path, rng = tmp_path_factory.mktemp("store") / "three.h5", np.random.default_rng(0)
    with EpisodeWriter(path, tasks=THREE_TASKS) as writer:
        for task, (obs, action) in THREE_TASKS.items():
            for _ in range(2):
                drawn = {"obs": rng.normal(size=(21, obs)), "action": rng.uniform(-1, 1, (20, action))}
                writer.append(task=task, reward=rng.uniform(size=20), source="drawn", **drawn)
    return path


@pytest.fixture(scope="session")
def data(three_task_store: Path) -> Callable[[], MultitaskDataModule]:
    """Makes a datamodule of `THREE_TASKS`, each batch of which has all of them."""
    return lambda: MultitaskDataModule(store=three_task_store, horizon=4, batch_size=48, val_fraction=0, num_workers=0)
