"""A data set as Minari 0.5 writes it in HDF5 (`minari.dataset._storages.hdf5_storage`, Farama-Foundation/Minari)."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

import gymnasium
import h5py
import numpy as np

if TYPE_CHECKING:
    from datamodules.store_export import Exported

_VERSION = "0.5.4"


def write_minari(folder: Path, what: Exported) -> None:
    """Write episodes, a group each, and what describes them.

    Args:
        folder: the data set's, which exists and is empty.
        what: is exported.

    Raises:
        OSError: it cannot be written.
    """
    data = folder / "data"
    data.mkdir()
    with h5py.File(data / "main_data.hdf5", "x", track_order=True) as file:
        for number, episode in enumerate(what.episodes):
            group = file.create_group(f"episode_{number}")
            group.attrs.update({"id": number, "total_steps": len(episode), "source": episode.source})
            over = np.zeros(len(episode), bool)
            ended = over.copy()
            over[-1], ended[-1] = not episode.terminated, episode.terminated
            group["observations"], group["actions"] = episode.obs, episode.action
            group["rewards"], group["terminations"], group["truncations"] = episode.reward, ended, over
    endless = np.full(what.obs_dim, np.inf)
    metadata = {
        "total_episodes": what.count,
        "total_steps": what.steps,
        "data_format": "hdf5",
        "jpeg_encoding": True,
        "observation_space": _box(-endless, endless),
        "action_space": _box(what.low, what.high),
        "dataset_size": round((data / "main_data.hdf5").stat().st_size / 1e6, 1),
        "dataset_id": f"lit-pwm/{re.sub('[^A-Za-z0-9_-]', '_', what.task)}-v0",
        "minari_version": _VERSION,
    }
    if (spec := _environment(what.task)) is not None:
        metadata["env_spec"] = spec
    (data / "metadata.json").write_text(json.dumps(metadata))


def _box(low: np.ndarray, high: np.ndarray) -> str:
    return json.dumps(
        {"type": "Box", "dtype": "float32", "shape": [len(low)], "low": low.tolist(), "high": high.tolist()}
    )


def _environment(task: str) -> str | None:
    """What gymnasium knows of a task `gym:ID` as JSON; None for other tasks and ids that are not registered."""
    found = gymnasium.registry.get(task.removeprefix("gym:")) if task.startswith("gym:") else None
    return None if found is None else found.to_json()
