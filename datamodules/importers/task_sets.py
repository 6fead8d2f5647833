"""TD-MPC2's published task sets, and which of them some data is of."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lit_pwm.errors import LitPWMError, did_you_mean
from lit_pwm.tasks.registry import TASK_SETS

_NAMED = re.compile(r"(?<![a-z0-9])(mt30|mt80)(?![a-z0-9])")


@dataclass(frozen=True)
class TaskSet:
    """A set as it was published.

    Attributes:
        name: `mt30` or `mt80`.
        obs_dim: width of its observations, padded.
        action_dim: width of its actions, padded.
        rows: of each of its episodes.
        chunks: its files.
        episodes: in all of them; pieces of episodes in MT80.
    """

    name: str
    obs_dim: int
    action_dim: int
    rows: int
    chunks: int
    episodes: int

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names in index order."""
        return TASK_SETS[self.name]


SETS = {
    "mt30": TaskSet("mt30", 24, 6, 501, 4, 690_000),
    "mt80": TaskSet("mt80", 39, 6, 101, 20, 5_450_000),
}


def task_set_of(
    files: Sequence[Path], obs_dim: int, action_dim: int, rows: int, lowest: int, largest: int, named: str | None
) -> TaskSet:
    """The task set that data is of, as the data tells.

    Args:
        files: where it lies; the names of the files and their folders may name a set.
        obs_dim: width of its observations.
        action_dim: width of its actions.
        rows: of each episode.
        lowest: its lowest task id.
        largest: its largest task id.
        named: the set that the user has named (--task-set).

    Raises:
        LitPWMError: it is of no set, its parts tell different ones, or it is of another set than was named.
    """
    if named is not None and named not in SETS:
        raise LitPWMError(f"The task set {named!r} (--task-set) is not known. {did_you_mean(named, SETS)}")
    told: dict[str, list[str]] = {}
    for one in SETS.values():
        if obs_dim == one.obs_dim:
            told.setdefault(one.name, []).append(f"observations of {obs_dim} entries")
        if rows == one.rows:
            told.setdefault(one.name, []).append(f"{rows} rows for each episode")
    if largest >= len(SETS["mt30"].tasks):
        told.setdefault("mt80", []).append(f"a task of id {largest}")
    evidence = "; ".join(f"{name}: {', '.join(words)}" for name, words in told.items())
    published = " and ".join(
        f"{one.name} has observations of {one.obs_dim} and actions of {one.action_dim} entries, {one.rows} rows for "
        f"each episode and ids from 0 to {len(one.tasks) - 1}"
        for one in SETS.values()
    )
    fitting = SETS[next(iter(told))] if len(told) == 1 else None
    if fitting is None or (obs_dim, action_dim) != (fitting.obs_dim, fitting.action_dim):
        what = f"tells of different task sets ({evidence})" if len(told) > 1 else "is of no task set that is known"
        raise LitPWMError(
            f"The data in {str(files[0].parent)!r} {what}: observations of {obs_dim} and actions of {action_dim} "
            f"entries, {rows} rows for each episode, ids from {lowest} to {largest}. {published}."
        )
    if lowest < 0 or largest >= len(fitting.tasks):
        raise LitPWMError(
            f"The data in {str(files[0].parent)!r} is of {fitting.name} ({evidence}), whose ids go from 0 to "
            f"{len(fitting.tasks) - 1}, but has ids from {lowest} to {largest}. It is damaged, or of another set."
        )
    if named is not None and named != fitting.name:
        raise LitPWMError(
            f"The task set {named!r} (--task-set) contradicts the data, which is of {evidence}. Leave --task-set out, "
            f"or name other files."
        )
    for path in files if named is None else ():
        for place in (path.name, path.parent.name):
            for other in set(_NAMED.findall(place.lower())) - {fitting.name}:
                raise LitPWMError(
                    f"The name {place!r} of {str(path)!r} says {other}, but the data is of {evidence}. (A public "
                    f"mirror serves chunks of mt80 as mt30.) If that is what you want, say so with --task-set "
                    f"{fitting.name}, or rename the folder."
                )
    return fitting
