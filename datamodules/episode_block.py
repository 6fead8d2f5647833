"""Some successive episodes of an import, in a store's rows: checked, padded, with their checksums and statistics."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from datamodules.importers.importer import ImportedEpisode, ImportedTask
from datamodules.layout import ROW_COLUMNS, observation_moments, rows_checksum
from datamodules.values import ACTION_LIMIT, REWARD_LIMIT
from lit_pwm.errors import LitPWMError


class ActionsBeyondError(Exception):
    """An action lies beyond its task's bounds by more than rounding."""


@dataclass(frozen=True, eq=False)
class EpisodeBlock:
    """Rows of some episodes, ready to be written.

    Attributes:
        rows: each column's rows.
        checksums: of each episode's rows [e].
        counts: observations of each episode that are in its statistics, int64 [e].
        sums: sum and M2 of each episode's observations, float64 [e, O] each.
        last_obs_known: uint8 [e].
        clipped: actions that were moved into [-1, 1].
        clamped: rewards that were moved into the range of a model's bins.
    """

    rows: Mapping[str, np.ndarray]
    checksums: np.ndarray
    counts: np.ndarray
    sums: tuple[np.ndarray, np.ndarray]
    last_obs_known: np.ndarray
    clipped: int
    clamped: int


class BlockBuilder:
    """Gathers episodes until they make a block. Values are looked at a block at a time, which is what makes it fast.

    Args:
        tasks: the store's, by name.
        widths: shape of each column's rows.
        most: rows after which a block is full.
        clip_actions: clip actions beyond their bounds instead of refusing them.
        clamp_rewards: likewise rewards.
    """

    def __init__(
        self,
        tasks: Mapping[str, ImportedTask],
        widths: Mapping[str, tuple[int, ...]],
        most: int,
        clip_actions: bool = False,
        clamp_rewards: bool = False,
    ) -> None:
        self._tasks, self._widths, self._most = list(tasks.items()), widths, most
        self._clip_actions, self._clamp_rewards = clip_actions, clamp_rewards
        self._held: list[tuple[ImportedEpisode, int, Callable[[], str]]] = []
        self._count = 0

    def add(self, episode: ImportedEpisode, task: int, length: int, name: Callable[[], str]) -> bool:
        """Add an episode; whether the block is full now.

        Args:
            episode: of `length` actions.
            task: index of its task.
            length: as planned.
            name: what it is called in errors.

        Raises:
            LitPWMError: its arrays have other shapes.
        """
        task_name, known = self._tasks[task]
        found = {"obs": episode.obs.shape, "action": episode.action.shape, "reward": episode.reward.shape}
        wanted = {"obs": (length + 1, known.obs_dim), "action": (length, known.action_dim), "reward": (length,)}
        if found != wanted:
            raise LitPWMError(
                f"The arrays of {name()} ({task_name!r}) have shapes "
                f"{', '.join(f'{key} {list(shape)}' for key, shape in found.items())}, and should have "
                f"{', '.join(f'{key} {list(shape)}' for key, shape in wanted.items())}: the file's parts do not fit "
                f"each other."
            )
        self._held.append((episode, task, name))
        self._count += length + 1
        return self._count >= self._most

    def __len__(self) -> int:
        """Episodes held."""
        return len(self._held)

    def take(self) -> EpisodeBlock:
        """The block of the episodes held, which are then forgotten.

        Raises:
            LitPWMError: a number is not finite, or a reward is beyond the range of a model's bins.
            ActionsBeyondError: an action is beyond its bounds.
        """
        rows = {name: np.zeros((self._count, *self._widths[name]), dtype) for name, dtype in ROW_COLUMNS.items()}
        starts = np.cumsum([0, *(len(episode.obs) for episode, _, _ in self._held)])
        for (episode, task, _), start, stop in zip(self._held, starts.tolist(), starts[1:].tolist(), strict=False):
            known = self._tasks[task][1]
            with np.errstate(over="ignore"):  # becomes infinite, and is refused below
                rows["obs"][start:stop, : known.obs_dim] = episode.obs
                rows["action"][start : stop - 1, : known.action_dim] = rescaled(episode.action, known)
                rows["reward"][start : stop - 1] = episode.reward
            rows["terminated"][stop - 1] = episode.terminated
        self._require_finite(rows, starts)
        clipped, clamped = self._moved(rows, starts)
        known_last = np.array([episode.last_obs_known for episode, _, _ in self._held], np.uint8)
        counts = np.diff(starts) - (known_last == 0)  # a repeated observation would count twice
        last = starts[1:] - 1
        rows["reward"][last] = np.nan
        checksums = np.empty(len(self._held), np.uint32)
        sums = np.zeros((len(self._held), *self._widths["obs"])), np.zeros((len(self._held), *self._widths["obs"]))
        for place, (_, task, _) in enumerate(self._held):
            known, start, stop = self._tasks[task][1], int(starts[place]), int(starts[place + 1])
            rows["action"][stop - 1, : known.action_dim] = np.nan
            checksums[place] = rows_checksum({name: array[start:stop] for name, array in rows.items()})
            recorded = rows["obs"][start : start + counts[place], : known.obs_dim]
            for own, values in zip(sums, observation_moments(recorded), strict=True):
                own[place, : known.obs_dim] = values
        self._held, self._count = [], 0
        return EpisodeBlock(rows, checksums, counts, sums, known_last, clipped, clamped)

    def _require_finite(self, rows: Mapping[str, np.ndarray], starts: np.ndarray) -> None:
        for column in ("obs", "action", "reward"):
            finite = np.isfinite(rows[column])
            if finite.all():
                continue
            row, *entry = (int(index) for index in np.argwhere(~finite)[0])
            place = int(np.searchsorted(starts, row, side="right")) - 1
            _, task, name = self._held[place]
            at = [row - int(starts[place]), *entry]
            raise LitPWMError(
                f"The {column} of {name()} ({self._tasks[task][0]!r}) holds {rows[column][row][tuple(entry)]} at {at}; "
                f"all numbers of a store must be finite in float32. Mend the data, or leave the episode out."
            )

    def _moved(self, rows: dict[str, np.ndarray], starts: np.ndarray) -> tuple[int, int]:
        """Move actions and rewards into their ranges where that is wanted; how many there were."""
        action, reward = rows["action"], rows["reward"]
        largest = np.abs(action)
        if not self._clip_actions and (largest > ACTION_LIMIT).any():
            raise ActionsBeyondError
        clipped = int((largest > 1).sum())
        if clipped:
            np.clip(action, -1, 1, out=action)
        beyond = np.abs(reward) > REWARD_LIMIT
        if beyond.any() and not self._clamp_rewards:
            row = int(np.argmax(beyond))
            place = int(np.searchsorted(starts, row, side="right")) - 1
            raise LitPWMError(
                f"The reward of {self._held[place][2]()} is {reward[row]:.7g} in row {row - int(starts[place])}, "
                f"beyond ±{REWARD_LIMIT:,.1f}: a model cannot tell such rewards apart. Scale the rewards down, or have "
                f"them clamped (--clamp-rewards), which the store records."
            )
        np.clip(reward, -REWARD_LIMIT, REWARD_LIMIT, out=reward)
        return clipped, int(beyond.sum())


def rescaled(action: np.ndarray, task: ImportedTask) -> np.ndarray:
    """Actions of a task in [-1, 1] where they lie within its bounds [T, A]."""
    if task.low is None or task.high is None:
        return action
    low, high = np.asarray(task.low, np.float64), np.asarray(task.high, np.float64)
    return (action - low) * (2 / (high - low)) - 1
