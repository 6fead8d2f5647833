"""Importing other projects' data into a store."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from datamodules.importers.all_formats import find_importer, option_values
from datamodules.importers.importer import Plan
from datamodules.plan_writing import Output, write_stores
from datamodules.store import EpisodeStore
from lit_pwm.errors import LitPWMError, did_you_mean
from lit_pwm.options import Count, checked
from lit_pwm.paths import absolute
from lit_pwm.tasks.spec import GYM_MAKE, GYM_PREFIX


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
    plan = _with_ids(importer.plan(paths, values))
    for notice in plan.notices:
        say(notice)
    numbers = _chosen(plan, tasks, limit)
    (store,) = write_stores([Output(final, plan, numbers, settings, clip_actions, clamp_rewards)], progress)
    return store


def _with_ids(plan: Plan) -> Plan:
    """The plan, whose tasks that are called `gym:ID` are made by that id where the files say nothing else."""
    tasks = {
        name: replace(task, spec={"make": GYM_MAKE, "kwargs": {"id": name.removeprefix(GYM_PREFIX)}, **task.spec})
        if name.startswith(GYM_PREFIX)
        else task
        for name, task in plan.tasks.items()
    }
    return replace(plan, tasks=tasks)


def _chosen(plan: Plan, tasks: Sequence[str] | None, limit: int | None) -> np.ndarray:
    """Numbers of the episodes to import."""
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
    return numbers
