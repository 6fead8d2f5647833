"""Readers of a store by this project's means, for `data.py`: the datamodule with its storages, and a loop over h5py.

python store_reader.py STORE HORIZON memmap|ram|device|h5py      # answers each line "BATCH_SIZE SECONDS" with JSON
"""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import h5py
import numpy as np
import torch
from reader_turns import Drawer, answer_turns

from datamodules import MultitaskDataModule
from lit_pwm.batch import Batch

_ENDLESS = 2**40


def datamodule_reader(path: str, horizon: int, storage: Any) -> Drawer:
    """Batches as training gets them: drawn, gathered, numbered, and where rows lie in files, looked at."""

    def drawer(batch_size: int) -> Callable[[], Batch]:
        data = MultitaskDataModule(
            path, horizon=horizon, batch_size=batch_size, storage=storage, batches_per_epoch=_ENDLESS, val_fraction=0,
            prefetch=0,  # one thread
        )  # fmt: skip
        data.setup()
        batches: Iterator[Batch] = iter(data.train_dataloader())
        return lambda: next(batches)

    return drawer


def h5py_reader(path: str, horizon: int) -> Drawer:
    """The loop that most data sets of HDF5 files have: each slice is read from the open file by itself."""
    file = h5py.File(path)
    obs, action, reward = (file[name] for name in ("obs", "action", "reward"))
    offset, length, task = (file[f"episode/{name}"][:].astype(np.int64) for name in ("offset", "length", "task"))
    random = np.random.default_rng(0)

    def drawer(batch_size: int) -> Callable[[], dict[str, torch.Tensor]]:
        def draw() -> dict[str, torch.Tensor]:
            episode = random.integers(len(length), size=batch_size)
            starts = offset[episode] + random.integers(length[episode] - horizon)
            out = {
                "obs": np.empty((horizon + 1, batch_size, obs.shape[1]), np.float32),
                "action": np.empty((horizon, batch_size, action.shape[1]), np.float32),
                "reward": np.empty((horizon, batch_size), np.float32),
            }
            for place, start in enumerate(starts.tolist()):
                out["obs"][:, place] = obs[start : start + horizon + 1]
                out["action"][:, place] = action[start : start + horizon]
                out["reward"][:, place] = reward[start : start + horizon]
            return {name: torch.from_numpy(values) for name, values in (*out.items(), ("task", task[episode]))}

        return draw

    return drawer


if __name__ == "__main__":
    torch.set_num_threads(1)
    store, steps, kind = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    warnings.filterwarnings("ignore", category=UserWarning)
    made = h5py_reader(store, steps) if kind == "h5py" else datamodule_reader(store, steps, kind)
    print(json.dumps({"h5py": h5py.__version__, "numpy": np.__version__, "torch": torch.__version__}), flush=True)
    answer_turns(made)
