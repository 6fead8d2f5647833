"""Random states in checkpoints, which Lightning leaves out."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer


class RNGState(Callback):
    """Saves the states of Python's, numpy's and torch's global generators and restores them when a run is resumed.

    Data order and imagination noise do not need it (they are functions of the seed and the update); a user's own
    component that draws from the global generators does. With several ranks the states are rank zero's.
    """

    def __init__(self) -> None:
        self._restored: dict[str, Any] | None = None

    def state_dict(self) -> dict[str, Any]:
        """Plain values and tensors only, so that checkpoints load with `weights_only`."""
        name, keys, position, has_gauss, gauss = np.random.get_state()  # noqa: NPY002
        version, internal, gauss_next = random.getstate()
        return {
            "python": [version, list(internal), gauss_next],
            "numpy": [str(name), torch.from_numpy(np.asarray(keys).astype(np.int64)), position, has_gauss, gauss],
            "torch": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep the states until training starts; what runs before may draw from the generators."""
        version, internal, gauss_next = state_dict["python"]
        name, keys, position, has_gauss, gauss = state_dict["numpy"]
        restored = {
            "python": (version, tuple(internal), gauss_next),
            "numpy": (name, keys.numpy().astype(np.uint32), position, has_gauss, gauss),
            "torch": state_dict["torch"],
            "cuda": list(state_dict["cuda"]),
        }
        # Tried where nothing depends on it: states of a damaged file are refused now, as all that is restored.
        random.Random().setstate(restored["python"])
        np.random.RandomState().set_state(restored["numpy"])
        torch.Generator().set_state(restored["torch"])
        self._restored = restored

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Restore the states."""
        if self._restored is None:
            return
        random.setstate(self._restored["python"])
        np.random.set_state(self._restored["numpy"])  # noqa: NPY002
        torch.set_rng_state(self._restored["torch"])
        if self._restored["cuda"] and torch.cuda.device_count() == len(self._restored["cuda"]):
            torch.cuda.set_rng_state_all(self._restored["cuda"])
        self._restored = None
