"""Which slices make a batch: a pure function of seed and step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

from lit_pwm.errors import LitPWMError
from lit_pwm.options import Count, CountOrZero, checked

Balance = Literal["transitions", "tasks"]


class Windows(NamedTuple):
    """Slices, each by its episode [B] and the row of it where the slice starts [B], int64."""

    episode: np.ndarray
    start: np.ndarray


def legal_starts(lengths: np.ndarray, horizon: int, terminated: np.ndarray | None = None) -> np.ndarray:
    """In how many rows of each episode a slice may start, from its first on [E].

    An episode of T actions has T - H + 1, none if it is shorter than H. One that ended by termination has T, each row
    but the terminal one: what would come behind that is known to be nothing, so that slices may run past it.

    Args:
        lengths: actions T of each episode [E].
        horizon: transitions H of a slice.
        terminated: whether each ended by termination, bool [E]; none did if not given.
    """
    inside = np.maximum(lengths - horizon + 1, 0)
    return inside if terminated is None else np.where(terminated, lengths, inside)


class SliceSampler:
    """Draws slices of H transitions (H + 1 observations), each of one episode, with replacement.

    Slices lie inside their episode, but may run past its end if it terminated (`legal_starts`). The batch of a step
    depends on the seed, the step and the batch's size alone, and each of W ranks takes its share of it, so that W ranks
    together see what one process would.

    Args:
        lengths: actions T of each episode [E].
        horizon: transitions H of a slice.
        tasks: task of each episode [E]; needed to balance them.
        balance: `transitions` draws uniformly from all legal starts; `tasks` draws a task that has any, uniformly, and
            then uniformly from its legal starts.
        seed: of the draws, 0 or more.
        stream: which of several streams of one seed, 0 or more; each draws anew.
        terminated: whether each episode ended by termination, bool [E]; none did if not given.
        weights: of each task, positive, float64 [K]: a task is drawn in proportion to its own. With `balance: tasks`
            alone; all are drawn equally often if not given.

    Attributes:
        num_windows: the number of legal starts.

    Raises:
        LitPWMError: no episode has a legal start, or an argument is not one of those above.
    """

    @checked
    def __init__(
        self,
        lengths: Sequence[int] | np.ndarray,
        horizon: Count,
        tasks: Sequence[int] | np.ndarray | None = None,
        balance: Balance = "transitions",
        seed: CountOrZero = 0,
        stream: CountOrZero = 0,
        terminated: Sequence[bool] | np.ndarray | None = None,
        weights: np.ndarray | None = None,
    ) -> None:
        lengths = np.asarray(lengths, np.int64)
        self.horizon, self.balance, self.seed, self.stream = horizon, balance, seed, stream
        if balance == "tasks":
            if tasks is None:
                raise LitPWMError("To balance slices by tasks, the sampler needs the task of each episode.")
            order = np.argsort(np.asarray(tasks), kind="stable")
        else:
            order = np.arange(len(lengths))
        legal = legal_starts(lengths, horizon, None if terminated is None else np.asarray(terminated, bool))[order]
        # Episodes without a legal start are left out, so that one search finds the episode of a window.
        self._episodes, legal = order[legal > 0], legal[legal > 0]
        self._ends = np.cumsum(legal)
        self._firsts = self._ends - legal
        self.num_windows = int(self._ends[-1]) if len(self._ends) else 0
        if self.num_windows == 0:
            longest = int(lengths.max(initial=0))
            raise LitPWMError(
                f"There is no slice of horizon {horizon}: the longest of {len(lengths)} episodes has {longest} "
                f"transitions. Use a horizon of at most {longest}, or longer episodes."
            )
        # First and number of windows of each group from which is drawn uniformly.
        if balance == "tasks":
            group = np.asarray(tasks)[self._episodes]
            edges = np.flatnonzero(np.diff(group)) + 1
            self._group_first = self._firsts[np.concatenate([[0], edges])]
            self._group_size = np.diff(np.append(self._group_first, self.num_windows))
            self._group_ends = None if weights is None else _ends(weights[group[np.concatenate([[0], edges])]])
        else:
            self._group_first, self._group_size = np.zeros(1, np.int64), np.array([self.num_windows])
            self._group_ends = None

    def sample(self, step: int, batch_size: int, rank: int = 0, world_size: int = 1) -> Windows:
        """A rank's share of the batch of a step.

        Args:
            step: batches drawn before, since the beginning of the run.
            batch_size: slices of the whole batch, all ranks together.
            rank: whose share.
            world_size: ranks that share the batch.

        Raises:
            LitPWMError: the batch is larger than the number of legal starts, or cannot be shared equally.
        """
        if batch_size > self.num_windows or batch_size < 1:
            raise LitPWMError(
                f"A batch of {batch_size} slices was asked for, but the data has {self.num_windows} slices of horizon "
                f"{self.horizon}. Use a batch size from 1 to {self.num_windows}, a shorter horizon, or more data."
            )
        if batch_size % world_size or not 0 <= rank < world_size:
            raise LitPWMError(f"A batch of {batch_size} slices has no equal share for rank {rank} of {world_size}.")
        share = batch_size // world_size
        key = (self.stream,) if self.stream else ()
        generator = np.random.Generator(np.random.Philox(np.random.SeedSequence([self.seed, step], spawn_key=key)))
        if self._group_ends is None:
            group = generator.integers(len(self._group_size), size=batch_size)
        else:
            group = np.searchsorted(self._group_ends, generator.random(batch_size), side="right")
        windows = self._group_first[group] + generator.integers(self._group_size[group])
        return self.locate(windows[rank * share : (rank + 1) * share])

    def require_enough(self, batch_size: int, world_size: int, paths: Sequence[str], option: str) -> None:
        """Make sure that batches do not ask for more slices than there are.

        Args:
            batch_size: slices of each rank.
            world_size: the number of ranks.
            paths: where the episodes are from, for the error.
            option: where the options are, for the error.

        Raises:
            LitPWMError: they do.
        """
        if batch_size * world_size > self.num_windows:
            ranks = f" on each of {world_size} ranks" if world_size > 1 else ""
            raise LitPWMError(
                f"{option}.batch_size is {batch_size}{ranks}, but {', '.join(paths)} holds only {self.num_windows} "
                f"training slices of horizon {self.horizon}. Use a batch size of at most "
                f"{self.num_windows // world_size}, a shorter horizon, or more data."
            )

    def locate(self, windows: np.ndarray) -> Windows:
        """Episode and start of windows, which are counted from 0 to `num_windows` - 1."""
        place = np.searchsorted(self._ends, windows, side="right")
        return Windows(self._episodes[place], windows - self._firsts[place])

    def spread(self, count: int) -> Windows:
        """At most `count` different windows that lie evenly over all, for validation; the same for every seed.

        Balanced by tasks, each task gives the same number, or all it has.
        """
        per_group = np.minimum(-(-count // len(self._group_size)), self._group_size)
        windows = np.concatenate(
            [
                first + (np.arange(number) * size + size // 2) // number
                for first, size, number in zip(self._group_first, self._group_size, per_group, strict=True)
            ]
        )
        # In an order without pattern, so that any part of it is spread too.
        windows = windows[np.random.Generator(np.random.Philox(len(windows))).permutation(len(windows))]
        return self.locate(windows[:count])


def _ends(weights: np.ndarray) -> np.ndarray:
    """Ends of the shares of [0, 1) that weights take, one after another; the last one's is 1 itself."""
    shares = weights / weights.max()  # of weights whose sum would overflow too
    ends = np.cumsum(shares / shares.sum())
    ends[-1] = 1.0
    return ends
