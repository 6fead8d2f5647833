"""The global random generators, as one value that can be compared and put back."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any, Self, cast

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class RandomStates:
    """States of Python's, numpy's and torch's global generators, and of that of one CUDA device."""

    python: tuple[Any, ...]
    numpy: tuple[Any, ...]
    torch: Tensor
    cuda: Tensor | None
    device: torch.device

    @classmethod
    def now(cls, device: torch.device) -> Self:
        """As they are, with those of `device`."""
        cuda = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
        state = cast("tuple[Any, ...]", np.random.get_state())  # noqa: NPY002
        return cls(random.getstate(), state, torch.get_rng_state(), cuda, device)

    @staticmethod
    def seed(seed: int, device: torch.device) -> None:
        """Seed them, with that of `device`, by a number of up to 63 bits."""
        random.seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002
        torch.default_generator.manual_seed(seed)
        if device.type == "cuda":
            index = torch.cuda.current_device() if device.index is None else device.index
            torch.cuda.default_generators[index].manual_seed(seed)

    def restore(self) -> None:
        """Put them back."""
        random.setstate(self.python)
        np.random.set_state(self.numpy)  # noqa: NPY002
        torch.set_rng_state(self.torch)
        if self.cuda is not None:
            torch.cuda.set_rng_state(self.cuda, self.device)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, RandomStates):
            return NotImplemented
        name, keys, *rest = self.numpy
        other_name, other_keys, *other_rest = other.numpy
        return (
            self.python == other.python
            and (name, rest) == (other_name, other_rest)
            and np.array_equal(keys, other_keys)
            and torch.equal(self.torch, other.torch)
            and (self.cuda is None or other.cuda is None or torch.equal(self.cuda, other.cuda))
        )
