"""A data set as Minari 0.5 writes it in HDF5 (`minari.dataset._storages.hdf5_storage`, Farama-Foundation/Minari)."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import gymnasium
import h5py
import numpy as np

from lit_pwm.tasks.spec import GYM_MAKE, GYM_PREFIX

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
    if (spec := _environment(what)) is not None:
        metadata["env_spec"] = spec
    (data / "metadata.json").write_text(json.dumps(metadata))


def _box(low: np.ndarray, high: np.ndarray) -> str:
    return json.dumps(
        {"type": "Box", "dtype": "float32", "shape": [len(low)], "low": low.tolist(), "high": high.tolist()}
    )


def _environment(what: Exported) -> str | None:
    """What gymnasium knows of a task of its registry as JSON, with the arguments and the time limit that the store has.

    None for other tasks and ids that are not registered.
    """
    made = what.spec.get("kwargs") if what.spec.get("make") == GYM_MAKE else None
    kwargs = dict(made) if isinstance(made, Mapping) else {}
    env_id = str(kwargs.pop("id", what.task.removeprefix(GYM_PREFIX) if what.task.startswith(GYM_PREFIX) else ""))
    if (found := gymnasium.registry.get(env_id)) is None:
        return None
    known = json.loads(found.to_json())
    known["kwargs"] = {**(known.get("kwargs") or {}), **kwargs}
    known["max_episode_steps"] = what.spec.get("episode_length", known.get("max_episode_steps"))
    return json.dumps(known)
