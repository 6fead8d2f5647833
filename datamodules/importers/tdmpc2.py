"""TD-MPC2's data of many tasks: MT30 and MT80, chunks of pickled TensorDicts (arXiv 2310.16828)."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from datamodules.importers.importer import ImportedEpisode, ImportedTask, ImportOption, Plan
from datamodules.importers.task_sets import TaskSet, task_set_of
from datamodules.importers.tdmpc2_chunk import KEYS, Chunk, read_chunk
from datamodules.importers.torch_chunks import texts_in
from lit_pwm.errors import LitPWMError
from lit_pwm.tasks.registry import task_spec
from lit_pwm.tasks.stored_specs import stored_spec

_CHUNK = re.compile(r"chunk_(\d+)\.pt")
_ACTION_REPEAT = 2

TASK_SET = ImportOption("--task-set", "the task set, which is told by the data and must agree with it", "mt30|mt80")


class TDMPC2:
    """Chunks of TD-MPC2's data, `chunk_0.pt` and so on."""

    name = "tdmpc2"
    title = "chunks of TD-MPC2's MT30 and MT80, pickled TensorDicts"
    options = (TASK_SET,)

    def recognises(self, path: Path) -> bool:
        """Whether a file is a torch file of obs, action, reward and task, or a folder's first chunk is."""
        files = _chunks_in(path) if path.is_dir() else [path]
        return bool(files) and texts_in(files[0]).issuperset(KEYS)

    def plan(self, sources: Sequence[Path], options: Mapping[str, Any]) -> Plan:
        """All episodes of the chunks, in the order of the chunks' numbers.

        Raises:
            LitPWMError: a file is no chunk, chunks differ, or they contradict the task set that was named.
        """
        files = _in_order(sources)
        layouts, ids = {}, []
        held = _Held()
        for path in files:
            layouts[path], found = _looked_at(held, path)
            ids.append(found)
        _require_alike(layouts)
        rows, obs_dim, action_dim = layouts[files[0]]
        task, counts = np.concatenate(ids), np.array([len(one) for one in ids])
        task_set = task_set_of(files, obs_dim, action_dim, rows, int(task.min()), int(task.max()), options["task_set"])
        tasks = {name: _task(name, rows - 1) for name in task_set.tasks}
        starts = np.concatenate([[0], np.cumsum(counts)])
        reader = _Reader(files, starts, list(tasks.items()), task, held)
        return Plan(
            tasks=tasks,
            length=np.full(len(task), rows - 1, np.int64),
            task=task,
            source=[f"tdmpc2 {task_set.name}"] * len(task),
            episodes=reader.episodes,
            action_repeat=_ACTION_REPEAT,
            files=files,
            notices=_notices(task_set, files, task, rows),
            episode_name=reader.name,
        )


def _looked_at(held: _Held, path: Path) -> tuple[tuple[int, int, int], np.ndarray]:
    """A chunk's layout and its episodes' tasks; no name of the caller's holds a chunk while the next is read."""
    chunk = held.get(path)
    return chunk.layout, chunk.task_ids()


def _task(name: str, length: int) -> ImportedTask:
    spec = task_spec(name)
    return ImportedTask(
        spec.obs_dim,
        spec.action_dim,
        spec=stored_spec(spec, ran_here=False),
        whole_episodes=length == spec.episode_length,
    )


def _notices(task_set: TaskSet, files: Sequence[Path], task: np.ndarray, rows: int) -> list[str]:
    """What is unlike the set as it was published."""
    said = []
    if len(task) < task_set.episodes:
        said.append(
            f"These {len(files)} of {task_set.chunks} chunks hold {len(task):,} of the {task_set.episodes:,} episodes "
            f"of {task_set.name}."
        )
    if rows != task_set.rows:
        said.append(f"Their episodes have {rows:,} rows; those of {task_set.name} as published have {task_set.rows}.")
    if absent := [name for number, name in enumerate(task_set.tasks) if not (task == number).any()]:
        shown = ", ".join(absent[:5]) + (", …" if len(absent) > 5 else "")
        said.append(f"There are no episodes of {len(absent)} of its {len(task_set.tasks)} tasks: {shown}.")
    return said


# -- files ------------------------------------------------------------------------------------------------------------
def _chunks_in(folder: Path) -> list[Path]:
    """A folder's chunks in the order of their numbers."""
    found = ((match, path) for path in folder.iterdir() if (match := _CHUNK.fullmatch(path.name)) and path.is_file())
    return [path for _, path in sorted((int(match[1]), path) for match, path in found)]


def _in_order(sources: Sequence[Path]) -> list[Path]:
    """The chunks' files by number; those of other names as they were given, after them.

    Raises:
        LitPWMError: a folder has none, or a file is named twice.
    """
    files: list[Path] = []
    for source in sources:
        found = _chunks_in(source) if source.is_dir() else [source]
        if not found:
            raise LitPWMError(
                f"The folder {str(source)!r} holds no chunk_0.pt, chunk_1.pt, …: name the chunks' folder."
            )
        files += found
    for one, other in itertools.combinations(files, 2):
        if one.samefile(other):
            raise LitPWMError(f"{str(one)!r} and {str(other)!r} are the same file, which would be imported twice.")
    matches = [_CHUNK.fullmatch(path.name) for path in files]
    order = sorted(range(len(files)), key=lambda place: int(match[1]) if (match := matches[place]) else 1 << 62)
    return [files[place] for place in order]


def _require_alike(layouts: Mapping[Path, tuple[int, int, int]]) -> None:
    first = next(iter(layouts))
    for path, layout in layouts.items():
        if layout != layouts[first]:
            told = [
                f"{str(p)!r} has {rows} rows for each episode, obs of {obs_dim} and actions of {action_dim} entries"
                for p, (rows, obs_dim, action_dim) in ((first, layouts[first]), (path, layout))
            ]
            raise LitPWMError(f"The chunks are of different data: {', and '.join(told)}. Import each set by itself.")


class _Held:
    """The chunk that was read last: one at a time is in memory, or mapped."""

    def __init__(self) -> None:
        self._chunk: Chunk | None = None

    def get(self, path: Path) -> Chunk:
        """A file's chunk; the one before is forgotten first."""
        if self._chunk is None or self._chunk.path != path:
            self._chunk = None
            self._chunk = read_chunk(path)
        return self._chunk


class _Reader:
    """Reads episodes by number."""

    def __init__(
        self,
        files: Sequence[Path],
        starts: np.ndarray,
        tasks: Sequence[tuple[str, ImportedTask]],
        task: np.ndarray,
        held: _Held,
    ) -> None:
        self._files, self._starts, self._tasks, self._task, self._held = files, starts, tasks, task, held

    def _place(self, number: int) -> tuple[Path, int]:
        chunk = int(np.searchsorted(self._starts, number, side="right")) - 1
        return self._files[chunk], number - int(self._starts[chunk])

    def name(self, number: int) -> str:
        """An episode's name in errors."""
        path, place = self._place(number)
        return f"episode {place} of {str(path)!r}"

    def episodes(self, numbers: np.ndarray) -> Iterator[ImportedEpisode]:
        """Episodes of some numbers, which rise.

        Row t of the file holds the action and the reward that led to observation t, so that our row t takes those of
        row t + 1, and row 0's are dropped whatever they are.
        """
        return map(self._episode, numbers.tolist())

    def _episode(self, number: int) -> ImportedEpisode:
        """An episode, copied: what is handed out must not hold a chunk in memory while the next is read."""
        path, place = self._place(number)
        chunk = self._held.get(path)
        name, task = self._tasks[self._task[number]]
        obs = chunk.obs[place]
        if obs[:, task.obs_dim :].any():
            raise LitPWMError(
                f"The obs of {self.name(number)} has other numbers than 0 beyond the {task.obs_dim} entries of "
                f"{name!r}, which is task {self._task[number]} of its set: the file is of another task set, or damaged."
            )
        action, reward = chunk.action[place, 1:, : task.action_dim], chunk.reward[place, 1:]
        return ImportedEpisode(obs[:, : task.obs_dim].copy(), action.copy(), reward.copy())
