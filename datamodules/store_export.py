"""A store's episodes of one task as a data set of another project's."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from datamodules.episode import Episode
from datamodules.lerobot_export import write_lerobot
from datamodules.minari_export import write_minari
from datamodules.store import EpisodeStore
from lit_pwm.errors import LitPWMError, did_you_mean
from lit_pwm.options import checked
from lit_pwm.paths import absolute
from lit_pwm.runtime.atomic import replacing_folder
from lit_pwm.tasks.stored_specs import StoredSpec

ExportFormat = Literal["minari", "lerobot"]


@dataclass(frozen=True, eq=False)
class Exported:
    """What is exported.

    Attributes:
        task: its name.
        spec: what the store says of its environment.
        obs_dim: width of observations.
        low: lower bounds of the environment's actions, float32 [A].
        high: upper bounds.
        count: the number of episodes.
        steps: actions of all episodes.
        episodes: they, one after another, actions within the environment's bounds.
    """

    task: str
    spec: StoredSpec
    obs_dim: int
    low: np.ndarray
    high: np.ndarray
    count: int
    steps: int
    episodes: Iterator[Episode]


@checked
def export_store(
    store: str | os.PathLike[str],
    out: str | os.PathLike[str],
    to: ExportFormat,
    task: str | None = None,
    say: Callable[[str], None] = lambda sentence: None,
) -> None:
    """Write the episodes of one task as a data set.

    Actions are scaled from [-1, 1] to the bounds that the store holds of the task (left as they are where it holds
    none). The data set has its name only when it is whole.

    Args:
        store: the store.
        out: the data set's folder, which must not exist.
        to: the format.
        task: which task; needed where the store has several.
        say: takes sentences that the user is to be told.

    Raises:
        LitPWMError: there is no such task, the folder exists, or it cannot be written.
    """
    path, source = absolute(out), EpisodeStore(store)
    if path.exists():
        raise LitPWMError(f"The folder {str(path)!r} exists already. Name another one, or remove it.")
    name = _one_task(source, task)
    numbers = np.flatnonzero(source.task == source.task_names.index(name))
    obs_dim, action_dim = source.tasks[name]
    spec = source.task_specs.get(name, {})
    low = np.array(spec.get("low", [-1.0] * action_dim), np.float32)
    high = np.array(spec.get("high", [1.0] * action_dim), np.float32)
    unknown = int((~source.last_obs_known[numbers]).sum())
    if unknown and to == "minari":
        say(
            f"The last observations of {unknown:,} episodes were not recorded; the ones before them stand in their "
            f"place, which the data set cannot say."
        )
    if to == "lerobot":
        say(
            f"LeRobot's data sets have no row for what was observed after the last action: the last observations of "
            f"{len(numbers):,} episodes are left out, and cannot be had back from the data set."
        )
    episodes = _within_bounds(source, numbers, low, high)
    what = Exported(name, spec, obs_dim, low, high, len(numbers), int(source.length[numbers].sum()), episodes)
    with replacing_folder(path, "The data set") as beside:
        (write_minari if to == "minari" else write_lerobot)(beside, what)


def _one_task(store: EpisodeStore, task: str | None) -> str:
    there: Sequence[str] = [store.task_names[number] for number in np.unique(store.task)]
    if task is None:
        if len(there) > 1:
            raise LitPWMError(
                f"The store {str(store.path)!r} has {len(there)} tasks, and a data set is of one environment. Name one "
                f"with --task: {', '.join(there[:10])}{', …' if len(there) > 10 else ''}."
            )
        return there[0]
    if task not in there:
        raise LitPWMError(f"The store {str(store.path)!r} has no episodes of {task!r}. {did_you_mean(task, there)}")
    return task


def _within_bounds(store: EpisodeStore, numbers: np.ndarray, low: np.ndarray, high: np.ndarray) -> Iterator[Episode]:
    """Episodes with actions in the environment's bounds; to the bit as they are where those are −1 and 1."""
    wide_low, wide_high = low.astype(np.float64), high.astype(np.float64)
    plain = bool((low == -1).all() and (high == 1).all())
    for number in numbers.tolist():
        episode = store[number]
        action = episode.action
        if not plain:
            scaled = wide_low + (action.astype(np.float64) + 1) / 2 * (wide_high - wide_low)
            action = np.clip(scaled.astype(np.float32), low, high)
        yield Episode(
            episode.task, episode.obs, action, episode.reward, episode.terminated, episode.source,
            episode.last_obs_known,
        )  # fmt: skip
