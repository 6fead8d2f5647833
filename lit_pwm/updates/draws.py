"""What an update draws: functions of the seed, the update and the place of a sample in the global batch."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor


class Draws:
    """The random numbers of one update, by name.

    Each stream depends on the run's seed, its own name and the number of the update alone, and is drawn for the whole
    global batch, of which a rank takes its rows: two ranks with half the batch draw what one process with the whole of
    it does, a resumed run draws what it would have drawn, and nothing outside of an update moves a stream. Streams of
    different names do not depend on each other, nor on the order in which they are asked for.

    What it costs: every rank draws the numbers of all W ranks and drops the others', W times the work and, while it
    draws, the memory. An actor's noise of 8 ranks with 512 starts each, 16 steps and 6 actions is 0.4 million numbers
    (2 ms on one CPU core); noise in all 512 entries of a latent is 34 million of them (0.13 GB, and 0.15 s on a CPU
    core), so few noise dimensions, or a GPU, are in place there.

    Args:
        seed: the run's.
        update: how many updates came before.
        rank: this process among `world_size`.
        world_size: processes that share the global batch equally, rank r its r-th part.
        device: where the numbers are drawn and returned. A CPU and a GPU draw different ones.
        dtype: of normal numbers.
    """

    def __init__(
        self,
        seed: int,
        update: int,
        rank: int = 0,
        world_size: int = 1,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.seed, self.update, self.rank, self.world_size = seed, update, rank, world_size
        self.device, self.dtype = torch.device(device), dtype

    def normal(self, name: str, batch_size: int, shape: Sequence[int]) -> Tensor:
        """Standard normal numbers for this rank's `batch_size` samples, [B, *shape]."""
        size = batch_size * self.world_size, *shape
        drawn = torch.randn(size, generator=self._generator(name), device=self.device, dtype=self.dtype)
        return self._share(drawn, batch_size)

    def permutations(self, name: str, batch_size: int, n: int) -> Tensor:
        """A permutation of 0 … n − 1 for each of this rank's `batch_size` samples, [B, n] int64."""
        size = batch_size * self.world_size, n
        keys = torch.rand(size, generator=self._generator(name), device=self.device)
        return self._share(keys, batch_size).argsort(dim=-1, stable=True)

    def _share(self, drawn: Tensor, batch_size: int) -> Tensor:
        if self.world_size == 1:
            return drawn
        return drawn[self.rank * batch_size : (self.rank + 1) * batch_size].clone()  # lets the others' rows go

    def _generator(self, name: str) -> torch.Generator:
        return torch.Generator(self.device).manual_seed(stream_seed(self.seed, name, self.update))


def stream_seed(seed: int, name: str, update: int) -> int:
    """A generator's seed for one stream of one update, of 63 bits."""
    digest = hashlib.blake2b(f"{seed}/{name}/{update}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1
