"""Which episodes are held out for validation, and what slices of them validation has."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from datamodules.episodes import EpisodeTable
from datamodules.sampler import legal_starts
from lit_pwm.errors import LitPWMError

_LONGEST_DEFAULT_VALIDATION = 16
_SHOWN = 4


@dataclass(eq=False)
class Split:
    """Training and validation episodes.

    Attributes:
        held: which episodes are held out, bool [E].
        horizon: transitions of a validation slice.
        limiting_task: the task whose longest episode is shorter than the horizon that was wanted, if any is.
        notices: what a user should know of it, a sentence each.
    """

    held: np.ndarray
    horizon: int
    limiting_task: str | None = None
    notices: list[str] = field(default_factory=list)

    def require_horizon(self, table: EpisodeTable) -> None:
        """Make sure that validation has slices of the horizon that was asked for.

        Raises:
            LitPWMError: all episodes of a task are shorter.
        """
        if self.limiting_task is not None:
            longest = int(table.length[table.task == list(table.tasks).index(self.limiting_task)].max())
            raise LitPWMError(
                f"data.val_horizon is {self.horizon}, but the longest episode of {self.limiting_task!r} has {longest} "
                f"transitions. Use a val_horizon of at most {longest}."
            )


def split(table: EpisodeTable, fraction: float, horizon: int, val_horizon: int | None = None) -> Split:
    """Hold out episodes of every task of every store: the fraction, rounded, but at least one where there are two.

    Which ones depends on the task's name and its number of episodes in that store, and only where some are too short
    for a slice on the horizons: not on the run's seed, so that runs with different seeds can be compared, nor on which
    other tasks and stores are used, so that an episode held out once stays held out when newly collected stores join.
    Held-out episodes offer a slice of the validation horizon, and of every task training keeps an episode that offers
    one of its own; one that terminated offers slices of any horizon.

    Args:
        table: the episodes.
        fraction: share of each task's episodes.
        horizon: transitions of a training slice.
        val_horizon: transitions of a validation slice; if not given, the larger of `horizon` and 16, or the length of
            the longest episode of the task for which that is shortest, if it is less; tasks whose episodes all
            terminated offer slices of any.
    """
    wanted = val_horizon or max(horizon, _LONGEST_DEFAULT_VALIDATION)
    found = Split(np.zeros(len(table), bool), wanted)
    if fraction == 0:
        return found
    own = {name: np.flatnonzero(table.task == task) for task, name in enumerate(table.tasks)}
    # Slices may run past terminations. But where other episodes of a task do not end so, the horizon is by default none
    # that only those offer which do: they alone would be held out.
    goes_on = np.isin(table.task, table.task[~table.terminated])
    endless = table.terminated if val_horizon else ~goes_on
    offers = np.where(endless, np.maximum(table.length, wanted), table.length)  # up to which horizon
    longest = {name: int(offers[episodes].max()) for name, episodes in own.items() if len(episodes) > 1}
    shortest = min(longest, key=lambda name: longest[name], default=None)
    if shortest is not None and longest[shortest] < wanted:
        found.limiting_task = shortest
        if val_horizon is None:
            found.horizon = longest[shortest]
            found.notices.append(
                f"Validation slices of all tasks have {found.horizon} transitions instead of {wanted}: no episode of "
                f"{shortest!r} is longer."
            )
    left_out, fewer = [], []
    for name in longest:
        asked = _hold_out(table, found, own[name], name, fraction, horizon)
        held = int(found.held[own[name]].sum())
        (left_out if not held else fewer if held < asked else []).append(name)
    if left_out:
        found.notices.append(
            f"Validation has no episode of {_listed(left_out)}: too few are as long as a slice of {found.horizon} "
            f"transitions to hold one out and leave training one of {horizon}."
        )
    if fewer:
        found.notices.append(
            f"Validation has fewer episodes than data.val_fraction asks for of {_listed(fewer)}, because few are as "
            f"long as a slice of {found.horizon} transitions."
        )
    ends = [table.task[table.terminated & there] for there in (found.held, ~found.held)]
    unseen = np.setdiff1d(*ends)
    if len(unseen):
        found.notices.append(
            f"All episodes of {_listed(list(table.tasks)[task] for task in unseen)} that terminated are held out, so "
            f"that a world model takes every episode there to go on. Collect more that terminate, or hold out fewer "
            f"(data.val_fraction)."
        )
    return found


def _hold_out(table: EpisodeTable, found: Split, own: np.ndarray, name: str, fraction: float, horizon: int) -> int:
    """Mark a task's held-out episodes; returns how many the fraction asks for."""
    enough, asked, picked = legal_starts(table.length, found.horizon, table.terminated) > 0, 0, []
    for store in np.unique(table.store[own]):
        there = own[table.store[own] == store]
        count = min(max(1, round(fraction * len(there))), len(there) - 1)
        seed = np.random.SeedSequence([zlib.crc32(name.encode()), len(there)])
        order = np.random.Generator(np.random.Philox(seed)).permutation(there)
        picked += order[enough[order]][:count].tolist()
        asked += count
    if not asked:  # stores with a single episode each
        picked, asked = own[enough[own]][-1:].tolist(), 1
    found.held[picked] = True
    # Training keeps an episode that is long enough; those held out last go back first.
    trainable = legal_starts(table.length, horizon, table.terminated) > 0
    while picked and not (~found.held[own] & trainable[own]).any():
        found.held[picked.pop()] = False
    return asked


def _listed(names: Iterable[str]) -> str:
    names = list(names)
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(map(repr, names[:_SHOWN])) + more


def require_slices(
    table: EpisodeTable, lengths: np.ndarray, horizon: int, paths: Sequence[str], option: str = "data"
) -> None:
    """Make sure that every task offers a training slice.

    Args:
        table: the episodes.
        lengths: actions of each episode, 0 for those that are not trained on [E].
        horizon: transitions of a slice.
        paths: the stores', for the error.
        option: where the stream's options are, for the error.

    Raises:
        LitPWMError: a task has no episode that is long enough.
    """
    for task, name in enumerate(table.tasks):
        mine = table.task == task
        longest = int(lengths[mine].max())
        if not legal_starts(lengths[mine], horizon, table.terminated[mine]).any():
            raise LitPWMError(
                f"{option}.horizon is {horizon}, but the longest training episode of {name!r} in {', '.join(paths)} "
                f"has {longest} transitions, so that it offers no slice. Use a horizon of at most {longest}, or leave "
                f"the task out with {option}.tasks."
            )
