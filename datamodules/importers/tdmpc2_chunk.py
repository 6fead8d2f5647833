"""One chunk of TD-MPC2's data: its tensors as arrays [N, T+1, …], and what they must agree on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from datamodules.importers.torch_chunks import load_tensors
from lit_pwm.errors import LitPWMError

if TYPE_CHECKING:
    import torch

KEYS = ("obs", "action", "reward", "task")
_BLOCK_EPISODES = 4096


@dataclass(frozen=True, eq=False)
class Chunk:
    """A chunk of N episodes of T+1 rows.

    Attributes:
        path: its file.
        obs: [N, T+1, O].
        action: [N, T+1, A]; row t holds the action that led to observation t, row 0 whatever was there before.
        reward: [N, T+1]; likewise.
        task: [N, T+1].
    """

    path: Path
    obs: np.ndarray
    action: np.ndarray
    reward: np.ndarray
    task: np.ndarray

    @property
    def layout(self) -> tuple[int, int, int]:
        """Rows of each episode, and the widths of observations and actions."""
        return self.obs.shape[1], self.obs.shape[2], self.action.shape[2]

    def __len__(self) -> int:
        """Episodes."""
        return len(self.obs)

    def task_ids(self) -> np.ndarray:
        """The task of each episode, int64 [N].

        Raises:
            LitPWMError: it changes within an episode, or is no whole number.
        """
        ids = np.empty(len(self), np.int64)
        for first in range(0, len(self), _BLOCK_EPISODES):
            rows = self.task[first : first + _BLOCK_EPISODES, 1:]  # row 0 is filler
            own = rows[:, :1]
            wrong = (rows != own).any(axis=1) | (own[:, 0] != np.floor(own[:, 0]))
            if wrong.any():
                place = int(np.argmax(wrong))
                raise LitPWMError(
                    f"Episode {first + place} of {str(self.path)!r} has the tasks {np.unique(rows[place])[:5].tolist()}"
                    f"; an episode has one, a whole number. The file is damaged, or no chunk of TD-MPC2's data."
                )
            ids[first : first + len(own)] = own[:, 0]
        return ids


def read_chunk(path: Path) -> Chunk:
    """The chunk of a file; a zip file's arrays are mapped from it.

    Raises:
        LitPWMError: it is none.
    """
    tensors = load_tensors(path)
    if missing := [key for key in KEYS if key not in tensors]:
        raise LitPWMError(
            f"The file {str(path)!r} has no {', '.join(missing)}; it has {', '.join(sorted(tensors)) or 'no tensors'}. "
            f"A chunk of TD-MPC2's data has obs, action, reward and task."
        )
    arrays = {key: _array(path, key, tensors[key]) for key in KEYS}
    for key in ("reward", "task"):
        if arrays[key].ndim == 3 and arrays[key].shape[2] == 1:
            arrays[key] = arrays[key][:, :, 0]
    shapes = {key: array.shape for key, array in arrays.items()}
    wanted = {"obs": 3, "action": 3, "reward": 2, "task": 2}
    fits = all(len(shapes[key]) == count for key, count in wanted.items())
    if not fits or len({shape[:2] for shape in shapes.values()}) > 1 or shapes["obs"][1] < 2 or 0 in shapes["obs"]:
        raise LitPWMError(
            f"The tensors of {str(path)!r} have shapes {', '.join(f'{k} {list(s)}' for k, s in shapes.items())}. A "
            f"chunk of N episodes of T actions has obs [N, T+1, O], action [N, T+1, A], reward and task [N, T+1]."
        )
    if "terminated" in tensors and bool(tensors["terminated"].any()):
        raise LitPWMError(
            f"The file {str(path)!r} holds terminated episodes, which chunks of TD-MPC2's data never do: their "
            f"episodes have a fixed number of rows. Its rows after a termination could not be told from others."
        )
    return Chunk(path, **arrays)


def _array(path: Path, key: str, tensor: torch.Tensor) -> np.ndarray:
    """A tensor of numbers as an array of the same memory."""
    try:
        array = tensor.detach().numpy()
    except (TypeError, RuntimeError) as error:
        raise LitPWMError(
            f"The {key} of {str(path)!r} is {tensor.dtype}, {tensor.layout}; plain floats and whole numbers are read."
        ) from error
    if array.dtype.kind not in ("iu" if key == "task" else "") + "f":
        raise LitPWMError(f"The {key} of {str(path)!r} has type {array.dtype}, which cannot be its numbers.")
    return array
