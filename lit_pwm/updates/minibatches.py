"""How the states of imagined rollouts are dealt to the critics' minibatches: each start's by its own permutation."""

from __future__ import annotations

import torch
from torch import Tensor

from lit_pwm.errors import LitPWMError


def require_dealable(horizon: int, minibatches: int) -> None:
    """Make sure that each start has a state for every minibatch.

    Raises:
        LitPWMError: there are more minibatches than imagined steps.
    """
    if minibatches > horizon:
        raise LitPWMError(
            f"PolicyLearning has {minibatches} critic_optimizer.minibatches, but each start has only {horizon} "
            f"imagined states to deal to them (horizon). Give at most {horizon} minibatches, or a longer horizon."
        )


class Deal:
    """Which of a start's H states each of M minibatches gets: ⌊H/M⌋ or ⌈H/M⌉ of them, in the order of a permutation.

    Where M does not divide H, the minibatches that get one more rotate with the start's place in the global batch, so
    that minibatches of a whole batch are of nearly one size. A rank's part of a minibatch depends on its own starts
    alone: minibatches of several ranks together are those of one process.

    Args:
        horizon: H, states of each start.
        minibatches: M.
        batch_size: starts B of this rank.
        rank: this process among `world_size`.
        world_size: processes with B starts each.
        device: of the indices.

    Attributes:
        factors: by minibatch, its states here over its states on an average rank; multiplied by it, the mean over a
            rank's part averages to the mean over the global minibatch.
    """

    def __init__(
        self,
        horizon: int,
        minibatches: int,
        batch_size: int,
        rank: int = 0,
        world_size: int = 1,
        device: torch.device | str = "cpu",
    ) -> None:
        require_dealable(horizon, minibatches)
        least, more = divmod(horizon, minibatches)
        starts = torch.arange(batch_size * world_size)
        numbers = torch.arange(minibatches)
        # [B·W, M]: one more for `more` minibatches from the start's own on, counted around.
        sizes = least + ((numbers - starts[:, None]) % minibatches < more).long()
        mine = sizes[rank * batch_size : (rank + 1) * batch_size]
        of_slot = numbers.repeat(batch_size).repeat_interleave(mine.flatten()).view(batch_size, horizon)
        self.batch_size, self.device = batch_size, torch.device(device)
        self._slots = [(of_slot == number).nonzero() for number in numbers]
        average = sizes.sum(0).double() / world_size
        self.factors = [len(slots) / size for slots, size in zip(self._slots, average.tolist(), strict=True)]
        self._slots = [slots.to(device) for slots in self._slots]

    def __call__(self, permutations: Tensor) -> list[Tensor]:
        """The states of each minibatch, as indices into all [H·B] in time-major order.

        Args:
            permutations: of each start's steps, [B, H].
        """
        return [permutations[start, slot] * self.batch_size + start for start, slot in (s.T for s in self._slots)]
