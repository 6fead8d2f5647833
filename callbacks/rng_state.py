"""Random states in checkpoints, which Lightning leaves out."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.rank_zero import rank_zero_info

from lit_pwm.errors import NonFiniteLossError


class RNGState(Callback):
    """Saves the states of Python's, numpy's and torch's global generators, every rank's own.

    A resumed rank goes on with its own. What updates draw does not need it (they are functions of the seed and the
    update, also where a component draws from a global generator); what a user's callback or loader draws from the
    global generators does. Ranks that a checkpoint of fewer ranks does not know keep the states that their run was
    seeded with, which is said. Hooks: `state_dict` (gathers, so all ranks save together), `on_train_start`,
    `on_exception`.
    """

    def __init__(self) -> None:
        self._restored: list[dict[str, object]] | None = None
        self._is_alone = False

    def state_dict(self) -> dict[str, object]:
        """Plain values and tensors only, so that checkpoints load with `weights_only`; by rank."""
        ranks = [_states()]
        if torch.distributed.is_available() and torch.distributed.is_initialized() and not self._is_alone:
            gathered: list[object] = [None] * torch.distributed.get_world_size()
            torch.distributed.all_gather_object(gathered, ranks[0])
            ranks = gathered
        return {"ranks": ranks}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep the states until training starts; what runs before may draw from the generators."""
        # Checkpoints of format 1 hold those of rank zero alone.
        self._restored = [_checked(states) for states in state_dict.get("ranks", [state_dict])]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Restore this rank's states."""
        if self._restored is None:
            return
        if trainer.world_size != len(self._restored):
            rank_zero_info(
                f"The checkpoint holds the states of the global random generators of {len(self._restored)} rank(s), "
                f"and this run has {trainer.world_size}. Updates draw as before; what else draws from those generators "
                f"does not go on to the bit."
            )
        if trainer.global_rank < len(self._restored):
            _restore(self._restored[trainer.global_rank])
        self._restored = None

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Wait for no other rank any more, unless the error came on all of them: who saves now may be alone."""
        self._is_alone = not isinstance(exception, NonFiniteLossError)


def _states() -> dict[str, object]:
    name, keys, position, has_gauss, gauss = np.random.get_state()  # noqa: NPY002
    version, internal, gauss_next = random.getstate()
    return {
        "python": [version, list(internal), gauss_next],
        "numpy": [str(name), torch.from_numpy(np.asarray(keys).astype(np.int64)), position, has_gauss, gauss],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def _checked(saved: Mapping[str, Any]) -> dict[str, Any]:
    version, internal, gauss_next = saved["python"]
    name, keys, position, has_gauss, gauss = saved["numpy"]
    states = {
        "python": (version, tuple(internal), gauss_next),
        "numpy": (name, keys.numpy().astype(np.uint32), position, has_gauss, gauss),
        "torch": saved["torch"],
        "cuda": list(saved["cuda"]),
    }
    # Tried where nothing depends on it: states of a damaged file are refused now, as all that is restored.
    random.Random().setstate(states["python"])
    np.random.RandomState().set_state(states["numpy"])
    torch.Generator().set_state(states["torch"])
    return states


def _restore(states: Mapping[str, Any]) -> None:
    random.setstate(states["python"])
    np.random.set_state(states["numpy"])  # noqa: NPY002
    torch.set_rng_state(states["torch"])
    if states["cuda"] and torch.cuda.device_count() == len(states["cuda"]):
        torch.cuda.set_rng_state_all(states["cuda"])
