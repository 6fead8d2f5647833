"""Importing other projects' data into a store."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from datamodules.episode_block import ActionsBeyondError, BlockBuilder, rescaled
from datamodules.import_progress import progress_bar
from datamodules.importers.all_formats import find_importer, option_values
from datamodules.importers.importer import ImportedTask, Plan
from datamodules.incoming import checked_action_repeat, checked_tasks
from datamodules.layout import block_rows
from datamodules.partial_store import ImportFolder, PartialStore
from datamodules.store import EpisodeStore
from datamodules.store_plan import StorePlan
from lit_pwm.errors import LitPWMError, did_you_mean
from lit_pwm.options import Count, checked
from lit_pwm.paths import absolute

_BLOCK_ROWS = 65_536
_NOTE_SECONDS = 2.0


@checked
def import_data(
    sources: Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    format: str | None = None,
    options: Mapping[str, Any] | None = None,
    tasks: Sequence[str] | None = None,
    limit: Count | None = None,
    clip_actions: bool = False,
    clamp_rewards: bool = False,
    progress: bool = True,
    say: Callable[[str], None] = lambda sentence: None,
) -> EpisodeStore:
    """Import files of another project into a new store.

    The store is written into one file beside its place, of its final size from the start. Killed at any moment, it goes
    on when it is called again with the same arguments, and the finished store is the same to the byte.

    Args:
        sources: files, or data sets' folders, of one format.
        out: the store's file, which must not exist yet.
        format: the format's name; told by the content if not given.
        options: of the format, by key such as `task_set`; see `datamodules.importers.all_formats.all_options`.
        tasks: names of the data's tasks to import; all if not given.
        limit: import the first so many episodes (of these tasks) only.
        clip_actions: clip actions beyond their bounds instead of refusing them; the store records how many.
        clamp_rewards: clamp rewards beyond the range of a model's bins, ±22,025.5; the store records how many.
        progress: show a progress bar on stderr.
        say: takes sentences that the user is to be told.

    Returns:
        The finished store.

    Raises:
        LitPWMError: the data cannot be imported, an option does not fit it, or the store cannot be written.
    """
    final, paths = absolute(out), [absolute(source) for source in sources]
    if not paths:
        raise LitPWMError("No data to import is named. Name files or a data set's folder.")
    importer = find_importer(paths, format)
    values = option_values(importer, options or {})
    settings = {
        "importer": importer.name,
        "options": {key: value for key, value in values.items() if value is not None},
        "tasks": list(tasks) if tasks is not None else None,
        "limit": limit,
        "clip_actions": clip_actions,
        "clamp_rewards": clamp_rewards,
    }
    if ImportFolder.finish_publishing(final):
        return EpisodeStore(final)
    plan = importer.plan(paths, values)
    for notice in plan.notices:
        say(notice)
    numbers, kept = _chosen(plan, tasks, limit)
    settings["files"] = [_file_settings(path) for path in plan.files]
    store_plan = _store_plan(plan, numbers, kept)
    with ImportFolder(final, settings) as folder, PartialStore(folder, store_plan) as partial:
        _write(plan, numbers, kept, store_plan, partial, clip_actions, clamp_rewards, progress)
        partial.publish()
    return EpisodeStore(final)


def _chosen(plan: Plan, tasks: Sequence[str] | None, limit: int | None) -> tuple[np.ndarray, dict[str, ImportedTask]]:
    """Numbers of the episodes to import, and the tasks that they are of, in the plan's order."""
    names = list(plan.tasks)
    for name in tasks or ():
        if name not in plan.tasks:
            raise LitPWMError(f"The data has no task {name!r} (--tasks). {did_you_mean(name, names)}")
    if tasks is not None and not tasks:
        raise LitPWMError("The option --tasks names no task. Write names separated by commas: --tasks A,B.")
    wanted = np.array([tasks is None or name in tasks for name in names])
    numbers = np.flatnonzero(wanted[plan.task])[:limit]
    if not len(numbers):
        there = [names[number] for number in np.unique(plan.task)]
        what = f"of {', '.join(map(repr, tasks))} " if tasks is not None else ""
        raise LitPWMError(
            f"The data holds no episode {what}that can be imported; it has {len(plan.task):,} of "
            f"{', '.join(there) or 'no task'}. Name other files or other tasks."
        )
    present = set(plan.task[numbers].tolist())
    return numbers, {name: plan.tasks[name] for place, name in enumerate(names) if place in present}


def _store_plan(plan: Plan, numbers: np.ndarray, kept: Mapping[str, ImportedTask]) -> StorePlan:
    places = np.array([list(kept).index(name) if name in kept else -1 for name in plan.tasks], np.int32)
    specs = {name: dict(task.spec) for name, task in kept.items()}
    for name, task in kept.items():
        if task.low is not None and task.high is not None:
            specs[name] |= {"low": np.asarray(task.low).tolist(), "high": np.asarray(task.high).tolist()}
    return StorePlan(
        checked_tasks({name: (task.obs_dim, task.action_dim) for name, task in kept.items()}),
        np.asarray(plan.length, np.int64)[numbers] + 1,
        places[plan.task[numbers]],
        [plan.source[number] for number in numbers.tolist()],
        checked_action_repeat(plan.action_repeat),
        specs,
        [task.whole_episodes for task in kept.values()],
    )


def _file_settings(path: Path) -> list[object]:
    """What tells that a file is the one that an interrupted import read."""
    found = path.stat()
    return [str(path), found.st_size, found.st_mtime_ns]


def _write(
    plan: Plan,
    numbers: np.ndarray,
    kept: Mapping[str, ImportedTask],
    store_plan: StorePlan,
    partial: PartialStore,
    clip_actions: bool,
    clamp_rewards: bool,
    progress: bool,
) -> None:
    """Write the episodes that are not written yet."""
    widths, first = store_plan.widths, partial.done
    most = block_rows(max(*widths["obs"], *widths["action"]), _BLOCK_ROWS)
    builder = BlockBuilder(kept, widths, most, clip_actions, clamp_rewards)
    total, noted = int(store_plan.rows.sum()), time.monotonic()
    with progress_bar(partial.name, total, partial.rows_done, progress) as advance:
        episodes = plan.episodes(numbers[first:])
        for place, number in enumerate(numbers[first:].tolist(), first):
            episode = next(episodes, None)
            if episode is None:
                raise LitPWMError(f"The data ends before {plan.episode_name(number)}, which it said it holds.")
            length = int(store_plan.rows[place]) - 1
            name = _Named(plan, number)
            if not builder.add(episode, int(store_plan.task[place]), length, name) and place + 1 < len(numbers):
                continue
            count = len(builder)
            try:
                block = builder.take()
            except ActionsBeyondError:
                raise _beyond(plan, numbers[place + 1 - count :], kept) from None
            partial.append(block)
            advance(len(block.rows["reward"]))
            if time.monotonic() - noted > _NOTE_SECONDS:
                partial.note()
                noted = time.monotonic()
        partial.note()


class _Named:
    """What an episode is called, found out only for an error."""

    def __init__(self, plan: Plan, number: int) -> None:
        self._plan, self._number = plan, number

    def __call__(self) -> str:
        return self._plan.episode_name(self._number)


def _beyond(plan: Plan, numbers: np.ndarray, kept: Mapping[str, ImportedTask]) -> LitPWMError:
    """The error of actions beyond their bounds, with the largest one of those that are left to import."""
    names, largest, where, count = list(plan.tasks), 0.0, "", 0
    for number, episode in zip(numbers.tolist(), plan.episodes(numbers), strict=False):
        task = names[plan.task[number]]
        size = np.abs(rescaled(np.asarray(episode.action), kept[task]))
        count += int((size > 1 + 1e-6).sum())
        if size.max() > largest:
            largest = float(size.max())
            row, entry = (int(index) for index in np.unravel_index(int(size.argmax()), size.shape))
            bounds = kept[task]
            low, high = (
                (-1.0, 1.0) if bounds.low is None or bounds.high is None else (bounds.low[entry], bounds.high[entry])
            )
            where = (
                f"{float(episode.action[row, entry]):.7g} in entry {entry} of row {row} of {plan.episode_name(number)} "
                f"({task!r}), whose bounds are {low:.7g} and {high:.7g}: {largest:.7g} in [-1, 1]"
            )
    return LitPWMError(
        f"{count:,} numbers of actions lie beyond their bounds. The largest: {where}. Give the bounds that the data "
        f"was made with, if the format takes --action-bounds, or have actions clipped (--clip-actions), which the "
        f"store records."
    )
