"""A second stream of slices beside the first: for a world model that is trained while a policy learns."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np

from datamodules.episodes import EpisodeTable, choose, open_all
from datamodules.joining import Joined, join, same_objects
from datamodules.numbering import Binding
from datamodules.splitting import Split, split
from datamodules.storages import widest
from datamodules.store import EpisodeStore
from lit_pwm.errors import LitPWMError
from lit_pwm.options import Count, Length, Positive, check_options
from lit_pwm.paths import absolute


@dataclass(frozen=True)
class SecondStream:
    """Slices that come with a batch under the key `second`, with a horizon and a batch size of their own.

    They are a function of the run's seed and the step alone, drawn under a key of their own: the first stream is the
    same to the bit with and without them. Episodes that are held out for validation are never among them.

    Attributes:
        horizon: transitions H of a slice.
        batch_size: slices of each rank.
        tasks: names of the tasks to draw from; all that have episodes if not given, whatever the first stream's are.
        stores: path of an episode store, or a list; those of the first stream if not given.
        every: batches come with every n-th step, the first among them; steps between have no `second`.
        seed_key: what sets its draws apart from the first stream's of the same seed.
        task_weights: with `balance: tasks` of the first stream, which holds here too, task name → how often it is drawn
            from relative to others; 1 for those that are not named.

    Raises:
        LitPWMError: an option is out of its range.
    """

    horizon: Count = 16
    batch_size: Count = 256
    tasks: list[str] | None = None
    stores: str | Annotated[list[str], Length(1)] | None = None
    every: Count = 1
    seed_key: Count = 1
    task_weights: dict[str, Positive] | None = None

    def __post_init__(self) -> None:
        check_options(SecondStream, vars(self))

    @property
    def paths(self) -> list[str] | None:
        """Its stores' absolute paths; None for the first stream's."""
        if self.stores is None:
            return None
        return [str(absolute(path)) for path in ([self.stores] if isinstance(self.stores, str) else self.stores)]


@dataclass(frozen=True, eq=False)
class SecondEpisodes:
    """The episodes of the second stream, and how they lie beside the first's.

    Attributes:
        paths: its stores'.
        table: its episodes, in an order that does not depend on the first stream.
        held: which of them are not drawn from, bool [E].
        joined: both streams' episodes.
        held_of_both: which of those are held out, bool.
        binding: how its batches number tasks, which count as in `joined`, and how wide they are.
    """

    paths: list[str]
    table: EpisodeTable
    held: np.ndarray
    joined: Joined
    held_of_both: np.ndarray
    binding: Binding


def open_second(
    options: SecondStream,
    paths: Sequence[str],
    stores: Sequence[EpisodeStore],
    table: EpisodeTable,
    found: Split,
    fraction: float,
    val_horizon: int | None,
) -> SecondEpisodes:
    """Choose the second stream's episodes, and those of them that it must leave to validation.

    An episode that both streams have is held out where the first stream holds it out; others by the same rule.

    Args:
        options: the second stream's.
        paths: the first stream's stores'.
        stores: those stores.
        table: the first stream's episodes.
        found: which of them are held out.
        fraction: share of each task's episodes that is held out.
        val_horizon: transitions of a validation slice, if it was given.

    Raises:
        LitPWMError: a store cannot be read or used beside the first's, or a task has no episodes.
    """
    own = options.paths
    with _naming_it():
        others = list(stores) if own is None else same_objects(open_all(own), stores)
        second = choose(others, options.tasks)
        joined = join(stores, table, others, second)
    held, shared = split(second, fraction, options.horizon, val_horizon).held, joined.places < len(table)
    held[shared] = found.held[joined.places[shared]]
    held_of_both = np.concatenate([found.held, held[~shared]])
    binding = Binding(np.arange(len(joined.table.tasks)), *widest(others), option="data.second")
    return SecondEpisodes(list(paths) if own is None else own, second, held, joined, held_of_both, binding)


@contextlib.contextmanager
def _naming_it() -> Generator[None, None, None]:
    """Errors within say which options they are about: the second stream's have the same names below."""
    try:
        yield
    except LitPWMError as error:
        raise LitPWMError(f"In the second stream of data (data.second): {error}") from error
