"""Whole batches, those of all ranks together, of which streams are a function: what a run that goes on must keep."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Self

from lightning.pytorch.utilities.rank_zero import rank_zero_info

from lit_pwm.errors import LitPWMError


@dataclass(frozen=True)
class GlobalBatch:
    """How many slices an update has, as checkpoints hold it.

    Attributes:
        ranks: that share a batch.
        batch_size: slices of a whole batch of the first stream.
        second_batch_size: of the second stream; None where there is none.
    """

    ranks: int
    batch_size: int
    second_batch_size: int | None = None

    @classmethod
    def of(cls, ranks: int, batch_size: int, second_batch_size: int | None) -> Self:
        """That of streams of which each rank has so many slices."""
        return cls(ranks, ranks * batch_size, None if second_batch_size is None else ranks * second_batch_size)

    def plain(self) -> dict[str, int | None]:
        """As a checkpoint holds it."""
        return asdict(self)

    def require_going_on(self, saved: Mapping[str, Any]) -> None:
        """Make sure that this run's slices go on as those of the run that wrote a checkpoint, or say that they do not.

        With as many ranks they go on to the bit. On another number of ranks with the same whole batches the slices and
        the draws of updates are still the same, and what is not is said. A run that was given another batch size on as
        many ranks draws other slices, and is told so.

        Args:
            saved: the checkpoint's.

        Raises:
            LitPWMError: on another number of ranks, a whole batch is another; or what is saved is no such thing.
        """
        theirs, moved = _read(saved), False
        sizes = (
            ("data.batch_size", theirs.batch_size, self.batch_size),
            ("data.second.batch_size", theirs.second_batch_size, self.second_batch_size),
        )
        for option, before, now in sizes:
            if before is None or now is None or before == now:
                continue
            moved = True
            if theirs.ranks != self.ranks:
                raise LitPWMError(_other_batch(option, before, now, theirs.ranks, self.ranks))
            rank_zero_info(
                f"{option} is {now // self.ranks} on each of {self.ranks} rank(s), and was {before // self.ranks}: the "
                f"slices of the updates from here on are others."
            )
        if theirs.ranks != self.ranks and not moved:
            rank_zero_info(
                f"The checkpoint is of a run of {theirs.ranks} rank(s), and this one has {self.ranks}. Slices and the "
                f"draws of updates are the same, because whole batches are. Not identical to the bit are weights and "
                f"statistics, whose sums over ranks are rounded in another order."
            )


def _read(saved: Mapping[str, Any]) -> GlobalBatch:
    names = [field.name for field in fields(GlobalBatch)]
    ranks, size, second = (saved.get(name) for name in names) if isinstance(saved, Mapping) else (None, None, None)
    if not isinstance(ranks, int) or not isinstance(size, int) or not isinstance(second, (int, type(None))):
        raise LitPWMError(
            f"The checkpoint holds {str(saved)[:80]!r} for the sizes of whole batches, where whole numbers "
            f"{', '.join(names)} are expected: the file is damaged. Use a checkpoint as a run wrote it."
        )
    return GlobalBatch(ranks, size, second)


def _other_batch(option: str, before: int, now: int, ranks_before: int, ranks: int) -> str:
    mended = (
        f"Set {option} to {before // ranks}, which is that of each rank"
        if before % ranks == 0
        else f"Use a number of ranks that divides {before}, and set {option} to its share"
    )
    return (
        f"The checkpoint is of a run of {ranks_before} rank(s) with {before} slices in a whole batch, and this one has "
        f"{ranks} with {option} {now // ranks}, which makes {now}: its updates would see other slices. {mended}; or "
        f"start a new run from the checkpoint's weights."
    )
