"""The values of a store's rows: one list of what can be wrong with them, for the writer, `data check` and training.

Actions lie in [-1, 1], in which policies act, and rewards in the range of the bins into which models sort them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

ACTION_LIMIT = np.float32(1 + 1e-6)
"""Of the magnitude of actions. What is beyond 1 and not beyond this is rounding, which the writer clips."""
REWARD_LIMIT = np.float32(math.expm1(10))
"""Of the magnitude of rewards: symexp(10), the outermost bins of two-hot rewards."""

ACTION_RANGE = "action of {task!r} is beyond [-1, 1]"
REWARD_RANGE = f"reward of {{task!r}} is beyond ±{REWARD_LIMIT:,.1f}"


@dataclass(frozen=True, eq=False)
class Block:
    """Some successive rows of a store, whole episodes or not, with what is known of each row.

    Attributes:
        rows: `obs`, `action`, `reward`, and `terminated` if it is looked at.
        episode: index of each row's episode [R].
        row: each row's place in its episode [R].
        is_last: whether it is its episode's last row [R].
        task: index of each row's task [R].
        obs_dims: width of each task's observations.
        action_dims: width of each task's actions.
        names: of tasks.
    """

    rows: Mapping[str, np.ndarray]
    episode: np.ndarray
    row: np.ndarray
    is_last: np.ndarray
    task: np.ndarray
    obs_dims: np.ndarray
    action_dims: np.ndarray
    names: list[str]

    @classmethod
    def of(
        cls,
        rows: Mapping[str, np.ndarray],
        start: int,
        offset: np.ndarray,
        length: np.ndarray,
        task: np.ndarray,
        tasks: Mapping[str, tuple[int, int]],
    ) -> Block:
        """The block of rows from `start` on.

        Args:
            rows: the rows' arrays.
            start: the first one's place in the store.
            offset: first row of each episode [E], rising.
            length: actions of each episode [E].
            task: index of each episode's task [E].
            tasks: task name → (obs_dim, action_dim).
        """
        place = np.arange(start, start + len(rows["reward"]))
        episode = np.searchsorted(offset, place, side="right") - 1
        row = place - offset[episode]
        dims = np.array(list(tasks.values()), np.int64)
        return cls(
            rows, episode, row, row == length[episode], task[episode], dims[:, 0], dims[:, 1], list(tasks)
        )  # fmt: skip


def row_kinds(block: Block) -> Iterator[tuple[str, np.ndarray, np.ndarray | None]]:
    """Kinds of faults that the rows of a block can have.

    Yields:
        The kind; which rows have it, bool [R]; and where its range tells more, the numbers that are looked at [R, …].
    """
    obs, action, reward, is_last = block.rows["obs"], block.rows["action"], block.rows["reward"], block.is_last
    obs_padding = np.arange(obs.shape[1]) >= block.obs_dims[block.task, None]
    action_padding = np.arange(action.shape[1]) >= block.action_dims[block.task, None]
    yield "obs is not finite", (~np.isfinite(obs) & ~obs_padding).any(axis=1), None
    yield "obs is not 0 in padding columns", ((obs != 0) & obs_padding).any(axis=1), None
    finite = np.isfinite(action)
    yield "action is not finite before the last row", (~finite & ~action_padding).any(axis=1) & ~is_last, None
    yield (
        "action is not NaN in the last row",
        ~(np.isnan(action) | action_padding).all(axis=1) & is_last,
        None,
    )
    yield "action is not 0 in padding columns", ((action != 0) & action_padding).any(axis=1), None
    yield "reward is not finite before the last row", ~np.isfinite(reward) & ~is_last, None
    yield "reward is not NaN in the last row", ~np.isnan(reward) & is_last, None
    too_far = ((np.abs(action) > ACTION_LIMIT) & finite & ~action_padding).any(axis=1) & ~is_last
    too_much = (np.abs(reward) > REWARD_LIMIT) & np.isfinite(reward) & ~is_last
    for kind, wrong, values in ((ACTION_RANGE, too_far, action), (REWARD_RANGE, too_much, reward)):
        for task in np.unique(block.task[wrong]):
            yield kind.format(task=block.names[task]), wrong & (block.task == task), values
    if "terminated" in block.rows:
        terminated = block.rows["terminated"]
        yield "terminated is neither 0 nor 1", terminated > 1, None
        yield "terminated is set before the last row", (terminated != 0) & ~is_last, None


@dataclass
class Tally:
    """Faults of one kind: how many rows have it, in which episodes, the first place, and the range of the numbers."""

    rows: int = 0
    episodes: set[int] = field(default_factory=set)
    first: tuple[int, int] = (0, 0)  # episode, row in it
    low: float = math.inf
    high: float = -math.inf

    def add(self, block: Block, wrong: np.ndarray, values: np.ndarray | None) -> None:
        """Count a block's rows."""
        place = int(np.argmax(wrong))
        if not self.rows:
            self.first = int(block.episode[place]), int(block.row[place])
        self.rows += int(wrong.sum())
        self.episodes.update(np.unique(block.episode[wrong]).tolist())
        if values is not None:
            seen = values[wrong]
            self.low = min(self.low, float(np.nanmin(seen)))
            self.high = max(self.high, float(np.nanmax(seen)))

    def describe(self, kind: str) -> str:
        """One sentence."""
        span = f", from {self.low:.7g} to {self.high:.7g}" if self.low <= self.high else ""
        where = f"first: episode {self.first[0]}, row {self.first[1]}"
        return f"{kind}{span}: {self.rows} rows in {len(self.episodes)} episodes ({where})"


def tally_rows(tallies: dict[str, Tally], block: Block) -> np.ndarray:
    """Add a block's faults to tallies by kind; returns which rows have any, bool [R]."""
    faulty = np.zeros(len(block.episode), bool)
    for kind, wrong, values in row_kinds(block):
        if wrong.any():
            tallies.setdefault(kind, Tally()).add(block, wrong, values)
            faulty |= wrong
    return faulty
