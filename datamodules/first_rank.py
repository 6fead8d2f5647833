"""What is found on the first of several ranks, for all of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from lightning.pytorch import Trainer

from lit_pwm.errors import LitPWMError

R = TypeVar("R")


def from_first_rank(find: Callable[[], R], trainer: Trainer | None) -> R:
    """What `find` returns, called on the first rank alone; all ranks must ask, and get the same.

    Args:
        find: reads what would be the same on every rank.
        trainer: which knows the ranks, all of which have been started; None where there is but this process.

    Raises:
        LitPWMError: `find` did, on every rank.
    """
    if trainer is None or trainer.world_size == 1:
        return find()
    found: list[R] | str = []
    if trainer.global_rank == 0:
        try:
            found = [find()]
        except LitPWMError as error:  # the others wait for an answer
            found = str(error)
    found = trainer.strategy.broadcast(found)
    if isinstance(found, str):
        raise LitPWMError(found)
    return found[0]
