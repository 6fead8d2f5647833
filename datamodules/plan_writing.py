"""Writing what plans hold into stores, each in one file that a kill leaves to be continued."""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from datamodules.episode_block import ActionsBeyondError, BlockBuilder, rescaled
from datamodules.import_progress import progress_bar
from datamodules.importers.importer import ImportedTask, Plan
from datamodules.incoming import checked_action_repeat, checked_tasks
from datamodules.layout import block_rows
from datamodules.origin import write_origin
from datamodules.partial_store import ImportFolder, PartialStore
from datamodules.store import EpisodeStore
from datamodules.store_plan import StorePlan
from lit_pwm.errors import LitPWMError

_BLOCK_ROWS = 65_536
_NOTE_SECONDS = 2.0


@dataclass(frozen=True, eq=False)
class Output:
    """A store to be written.

    Attributes:
        final: its file, which must not exist.
        plan: what there is.
        numbers: of the episodes that it gets, rising.
        settings: what these depend on, beside the plan's files. A run that continues another must have the same.
        clip_actions: clip actions beyond their bounds instead of refusing them.
        clamp_rewards: likewise rewards beyond the range of a model's bins.
    """

    final: Path
    plan: Plan
    numbers: np.ndarray
    settings: Mapping[str, object]
    clip_actions: bool = False
    clamp_rewards: bool = False


def write_stores(outputs: Sequence[Output], progress: bool) -> list[EpisodeStore]:
    """Write stores; none has its name before all are written and checked.

    Raises:
        LitPWMError: an episode cannot be stored, or a file cannot be written.
    """
    with contextlib.ExitStack() as opened:
        finished: list[tuple[Path, Mapping[str, object], PartialStore]] = []
        for output in outputs:
            settings = {**output.settings, "files": [_file_settings(path) for path in output.plan.files]}
            if ImportFolder.finish_publishing(output.final, settings):
                continue
            folder = opened.enter_context(ImportFolder(output.final, settings))
            store_plan = _store_plan(output.plan, output.numbers, _kept(output.plan, output.numbers))
            partial = opened.enter_context(contextlib.closing(PartialStore(folder, store_plan)))
            _write(output, store_plan, partial, progress)
            with progress_bar(f"Checking {output.final.name}", int(store_plan.rows.sum()), 0, progress) as advance:
                partial.complete(advance)
            finished.append((output.final, settings, partial))
        for final, settings, partial in finished:
            write_origin(final, settings)
            partial.publish()
    return [EpisodeStore(output.final) for output in outputs]


def _kept(plan: Plan, numbers: np.ndarray) -> dict[str, ImportedTask]:
    """The tasks that have episodes among some, in the plan's order."""
    present = set(plan.task[numbers].tolist())
    return {name: task for place, (name, task) in enumerate(plan.tasks.items()) if place in present}


def _store_plan(plan: Plan, numbers: np.ndarray, kept: Mapping[str, ImportedTask]) -> StorePlan:
    places = np.array([list(kept).index(name) if name in kept else -1 for name in plan.tasks], np.int32)
    specs = {name: dict(task.spec) for name, task in kept.items()}
    for name, task in kept.items():
        if task.low is not None and task.high is not None:
            specs[name] |= {"low": np.asarray(task.low).tolist(), "high": np.asarray(task.high).tolist()}
    known = plan.last_obs_known
    says_more = (
        known is None or any(specs.values()) or not all(task.whole_episodes for task in kept.values())
    ) or not known[numbers].all()
    return StorePlan(
        checked_tasks({name: (task.obs_dim, task.action_dim) for name, task in kept.items()}),
        np.asarray(plan.length, np.int64)[numbers] + 1,
        places[plan.task[numbers]],
        [plan.source[number] for number in numbers.tolist()],
        checked_action_repeat(plan.action_repeat),
        specs if says_more else None,
        [task.whole_episodes for task in kept.values()],
        plan.moved,
    )


def _file_settings(path: Path) -> list[object]:
    """What tells that a file is the one that an interrupted import read."""
    found = path.stat()
    return [str(path), found.st_size, found.st_mtime_ns]


def _write(output: Output, store_plan: StorePlan, partial: PartialStore, progress: bool) -> None:
    """Write the episodes that are not written yet."""
    plan, numbers, kept = output.plan, output.numbers, _kept(output.plan, output.numbers)
    widths, first = store_plan.widths, partial.done
    most = block_rows(max(*widths["obs"], *widths["action"]), _BLOCK_ROWS)
    builder = BlockBuilder(kept, widths, most, output.clip_actions, output.clamp_rewards)
    total, noted = int(store_plan.rows.sum()), time.monotonic()
    with progress_bar(f"Writing {partial.name}", total, partial.rows_done, progress) as advance:
        episodes = plan.episodes(numbers[first:])
        for place, number in enumerate(numbers[first:].tolist(), first):
            episode = next(episodes, None)
            if episode is None:
                raise LitPWMError(f"The data ends before {plan.episode_name(number)}, which it said it holds.")
            length = int(store_plan.rows[place]) - 1
            name = functools.partial(plan.episode_name, number)  # found out only for an error
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
