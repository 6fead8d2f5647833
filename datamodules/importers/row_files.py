"""Data that is rows one after another in files, as D4RL, OGBench and LeRobot have it: which rows make which episode.

Such files mark the ends of episodes in a column, and most of them have no row for the observation that follows the last
action. What becomes of an episode then: one that terminated keeps its T actions, its last observation repeated and
flagged, because the reward and the label of its end stand in that very row; one that did not gives T − 1, its last
observation being that of the row whose action is left out; and one with nothing left is dropped and counted.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from datamodules.importers.importer import ImportedEpisode, ImportedTask, Plan

ReadRows = Callable[[str, int, int], np.ndarray]
"""Column, first row, row after the last → the rows' values."""


@dataclass(frozen=True, eq=False)
class Pieces:
    """The episodes among a file's rows.

    Attributes:
        first: each episode's first row [E].
        length: its actions T, which stand in the rows from `first` on [E].
        terminated: whether it ended by termination, bool [E].
        last_obs_known: whether there is an observation after its last action, bool [E].
        dropped: episodes with nothing left.
    """

    first: np.ndarray
    length: np.ndarray
    terminated: np.ndarray
    last_obs_known: np.ndarray
    dropped: int = 0

    def with_something_left(self) -> Pieces:
        """Those of at least one action."""
        left = self.length > 0
        return Pieces(
            self.first[left],
            self.length[left],
            self.terminated[left],
            self.last_obs_known[left],
            self.dropped + int((~left).sum()),
        )


@dataclass(frozen=True, eq=False)
class RowFile:
    """A file of rows.

    Attributes:
        path: which.
        pieces: its episodes.
        open: opens it for reading rows, each column in rising order.
        obs: columns of observations, side by side.
        next_obs: column of the observations that followed; None where there is none.
        action: column of actions.
        reward: column of rewards.
        reward_row: rows by which rewards stand after the actions that earned them.
    """

    path: Path
    pieces: Pieces
    open: Callable[[], AbstractContextManager[ReadRows]]
    obs: Sequence[str] = ("observations",)
    next_obs: str | None = None
    action: str = "actions"
    reward: str = "rewards"
    reward_row: int = 0

    def episode(self, read: ReadRows, number: int) -> ImportedEpisode:
        """An episode of the file."""
        pieces = self.pieces
        start, stop = int(pieces.first[number]), int(pieces.first[number] + pieces.length[number])
        known = bool(pieces.last_obs_known[number])
        last_row = stop + (known and self.next_obs is None)
        obs = np.concatenate([_wide(read(column, start, last_row)) for column in self.obs], axis=1)
        if self.next_obs is not None:
            obs = np.concatenate([obs, _wide(read(self.next_obs, stop - 1, stop))])
        elif not known:
            obs = np.concatenate([obs, obs[-1:]])
        reward = read(self.reward, start + self.reward_row, stop + self.reward_row)
        return ImportedEpisode(
            obs,
            _wide(read(self.action, start, stop)),
            reward.reshape(len(reward)),
            bool(pieces.terminated[number]),
            known,
        )


def marked(ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """First row and number of rows of each episode, int64 [E] both.

    Args:
        ends: whether a row is its episode's last, bool [N]; what follows the last of them is an episode too.
    """
    last = np.flatnonzero(ends)
    if len(ends) and not ends[-1]:
        last = np.append(last, len(ends) - 1)
    first = np.concatenate([[0], last[:-1] + 1]) if len(last) else last
    return first.astype(np.int64), (last + 1 - first).astype(np.int64)


def without_next(first: np.ndarray, rows: np.ndarray, terminated: np.ndarray, has_next: bool) -> Pieces:
    """Episodes whose every row is a transition, and whose last observation is nowhere but in a column of next ones.

    Args:
        first: first row of each episode [E].
        rows: its rows [E].
        terminated: whether it terminated [E].
        has_next: whether there is a column of next observations.
    """
    length = rows if has_next else np.where(terminated, rows, rows - 1)
    known = np.ones(len(rows), bool) if has_next else ~terminated
    return Pieces(first, length, terminated, known).with_something_left()


def row_plan(
    files: Sequence[RowFile],
    tasks: Mapping[str, ImportedTask],
    source: str,
    action_repeat: int = 1,
    task_of: Sequence[np.ndarray] | None = None,
    name_of: Callable[[int, int], str] | None = None,
    notices: Sequence[str] = (),
) -> Plan:
    """The plan of files of rows.

    Args:
        files: in order.
        tasks: name → task.
        source: what acted.
        action_repeat: control steps for each action.
        task_of: index of the task of each episode of each file; all are of the first if not given.
        name_of: what an episode is called in errors, from the file's index and the episode's in it.
        notices: said beside that of episodes with nothing left.
    """
    counts = np.array([len(file.pieces.length) for file in files])
    ends = np.cumsum(counts)

    def place(number: int) -> tuple[int, int]:
        index = int(np.searchsorted(ends, number, side="right"))
        return index, number - int(ends[index] - counts[index])

    def episodes(numbers: np.ndarray) -> Iterator[ImportedEpisode]:
        with contextlib.ExitStack() as opened:
            current, read = -1, None
            for number in numbers.tolist():
                index, own = place(number)
                if index != current or read is None:
                    opened.close()
                    current, read = index, opened.enter_context(files[index].open())
                yield files[index].episode(read, own)

    def called(number: int) -> str:
        index, own = place(number)
        if name_of is not None:
            return name_of(index, own)
        pieces = files[index].pieces
        return f"episode {own} of {files[index].path.name} (from row {int(pieces.first[own]):,} on)"

    dropped = sum(file.pieces.dropped for file in files)
    lost = [f"{dropped:,} episodes had nothing left and were dropped: a single row, with nothing after it."]
    return Plan(
        tasks=tasks,
        length=np.concatenate([file.pieces.length for file in files]),
        task=np.concatenate(task_of) if task_of is not None else np.zeros(int(counts.sum()), np.int64),
        source=[source] * int(counts.sum()),
        episodes=episodes,
        action_repeat=action_repeat,
        files=list(dict.fromkeys(file.path for file in files)),
        notices=[*notices, *(lost if dropped else [])],
        episode_name=called,
    )


def _wide(values: np.ndarray) -> np.ndarray:
    """Rows of numbers [T, W], also of a column of single numbers."""
    return values.reshape(len(values), -1)
