"""What the study on stochastic dynamics scores predictions against, as a file; needs no simulator."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from lit_pwm.runtime.atomic import replacing


@dataclass(frozen=True)
class Futures:
    """N states of held-out episodes and what followed them within T agent steps; unpadded float32.

    Attributes:
        obs: the observations to predict from, [N, O].
        action: the actions that followed, [T, N, A].
        outcome: the observations of the episode itself, [T, N, O].
        samples: those of M independent futures under the same actions, [M, T, N, O].
        climatology: observations at random times of the held-out episodes, [K, O].
        episode: the number of the episode of each state, [N].
    """

    obs: np.ndarray
    action: np.ndarray
    outcome: np.ndarray
    samples: np.ndarray
    climatology: np.ndarray
    episode: np.ndarray

    def save(self, path: Path) -> None:
        """Write a compressed .npz."""
        with replacing(path, "The futures") as part, part.open("wb") as file:
            np.savez_compressed(file, **asdict(self))

    @classmethod
    def load(cls, path: Path) -> Futures:
        """Read what `save` wrote."""
        with np.load(path, allow_pickle=False) as file:
            return cls(**file)
