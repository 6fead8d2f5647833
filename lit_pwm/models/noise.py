"""Noise of a component's own, for when it is used without noise being handed in."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class OwnNoise:
    """Standard normal numbers from generators of its own, one for each device, that a seed starts.

    Updates hand noise in, as a function of (seed, update, sample); everything else (predictions, evaluations,
    diagnostics) may leave it out. Then it comes from here, so that torch's global generator, and with it whatever
    draws from that, goes on as if nothing had been drawn. Copies and pickles go on where the original was; state dicts
    hold nothing of it.

    Args:
        seed: of all generators.
    """

    def __init__(self, seed: int = 0) -> None:
        self.seed(seed)

    def seed(self, seed: int) -> None:
        """Start anew."""
        self._seed = seed
        self._generators: dict[str, torch.Generator] = {}
        self._left: dict[str, Tensor] = {}  # where generators stood that this process has not needed yet

    def normal(self, *shape: int, like: Tensor) -> Tensor:
        """Numbers of this shape, with the dtype and on the device of `like`."""
        device = like.device
        if device.type == "meta":
            return torch.empty(shape, dtype=like.dtype, device=device)
        return torch.randn(shape, generator=self._generator(device), dtype=like.dtype, device=device)

    def _generator(self, device: torch.device) -> torch.Generator:
        name = str(device)
        if name not in self._generators:
            self._generators[name] = torch.Generator(device).manual_seed(self._seed)
            if name in self._left:
                self._generators[name].set_state(self._left.pop(name))
        return self._generators[name]

    def __getstate__(self) -> dict[str, object]:
        states = {name: generator.get_state() for name, generator in self._generators.items()}
        return {"seed": self._seed, "states": self._left | states}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.seed(state["seed"])
        self._left = dict(state["states"])


def seed_noise(module: nn.Module, seed: int) -> None:
    """Start the noise of all components in `module` anew: evaluations of one seed then draw the same.

    Each component gets a stream of its own, by its place in the module.
    """
    found = [value for part in module.modules() for value in vars(part).values() if isinstance(value, OwnNoise)]
    for number, noise in enumerate(found):
        noise.seed(seed + 1_000_003 * number)
