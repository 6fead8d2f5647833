"""Which checkpoints a folder of runs can do without."""

from __future__ import annotations

import os
import re
import time
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from lit_pwm.checkpoints.formats.base import file_beside
from lit_pwm.checkpoints.formats.format_registry import FORMATS
from lit_pwm.checkpoints.migration import DESCRIPTION_KEY
from lit_pwm.checkpoints.references import REFERENCE_KEY
from lit_pwm.experiments.progressing import YOUNG_SECONDS, in_progress

_PART = re.compile(r"\..+\.part")


@dataclass(frozen=True)
class Keeping:
    """What is kept beside what always is: the last checkpoint and the best one of each metric.

    Attributes:
        best: of each metric, how many of the best; None for all that their run kept.
        every: those whose number of updates is a multiple of it; None for no others.
        newest: how many of the rest, those with most updates.
        budget: bytes that all files below the folder may have; no more is deleted than that takes. None for no limit:
            all is deleted that need not be kept.
    """

    best: int | None = None
    every: int | None = None
    newest: int = 0
    budget: int | None = None


@dataclass(frozen=True)
class Found:
    """A file.

    Attributes:
        path: its place.
        size: bytes that deleting it frees.
        step: updates; 0 for an unfinished file.
        why: why it may go, or must stay.
    """

    path: Path
    size: int
    step: int
    why: str


@dataclass
class Pruning:
    """What would be deleted.

    Attributes:
        gone: files that the policy deletes, in order.
        kept: checkpoints that stay.
        running: run folders in progress, of which nothing is touched, and why.
        size: bytes of all files below the folder.
        budget: bytes that they may have.
    """

    gone: list[Found] = field(default_factory=list)
    kept: list[Found] = field(default_factory=list)
    running: dict[Path, str] = field(default_factory=dict)
    size: int = 0
    budget: int | None = None

    @property
    def freed(self) -> int:
        """Bytes."""
        return sum(found.size for found in self.gone)

    @property
    def over(self) -> int:
        """Bytes beyond the budget that remain."""
        return 0 if self.budget is None else max(0, self.size - self.freed - self.budget)


@dataclass(frozen=True)
class _Checkpoint:
    path: Path
    run: Path
    size: int
    step: int
    callbacks: Mapping[str, Any]
    refers_to: str | None


def plan_pruning(root: Path, keeping: Keeping, now: float | None = None, looks_for_runs: bool = True) -> Pruning:
    """Find what may be deleted below a folder; nothing is.

    Checkpoints of lit_pwm alone are looked at, what killed processes have left of unfinished ones, and files of other
    formats beside a checkpoint (`callbacks.CheckpointAdapter`), which go with it. A file that a checkpoint without its
    world model refers to stays.

    Args:
        root: a folder of runs.
        keeping: what is kept.
        now: seconds since the epoch; the clock's if not given.
        looks_for_runs: whether runs in progress are looked for; off where the caller knows that there are none.
    """
    now = time.time() if now is None else now
    result, checkpoints, parts = Pruning(budget=keeping.budget), [], []
    running: dict[Path, str | None] = {}
    sizes: dict[Path, int] = {}
    for path, size, seconds in _files(root):
        result.size += size
        sizes[path] = size
        run = path.parent.parent if path.parent.name == "checkpoints" and path.parent != root else path.parent
        if path.suffix != ".ckpt" and not _PART.fullmatch(path.name):
            continue
        if run not in running:
            running[run] = in_progress(run, root, now) if looks_for_runs else None
        if running[run] is not None:
            result.running[run] = str(running[run])
        if path.suffix == ".ckpt":
            checkpoints += [] if (found := _glance(path, run, size)) is None else [found]
        elif running[run] is None and now - seconds >= YOUNG_SECONDS:
            parts.append(Found(path, size, 0, "left unfinished by a killed process"))
    needed = _needed(checkpoints, keeping)
    spare = []
    for one in sorted(checkpoints, key=lambda one: one.step):
        if one.run in result.running:
            continue
        if (why := needed.get(one.path) or _by_policy(one, keeping)) is not None:
            result.kept.append(Found(one.path, one.size, one.step, why))
        else:
            spare.append(one)
    result.gone += parts
    newest = {one.path for run in {one.run for one in spare} for one in _newest(spare, run, keeping.newest)}
    for one in spare:  # those with fewest updates first
        if one.path in newest:
            result.kept.append(Found(one.path, one.size, one.step, f"one of the {keeping.newest} newest"))
        elif keeping.budget is not None and not result.over:
            result.kept.append(Found(one.path, one.size, one.step, "the budget has room for it"))
        else:
            result.gone.append(Found(one.path, one.size, one.step, "neither best nor last"))
            beside = [path for kind in FORMATS if (path := file_beside(one.path, kind)) in sizes]
            result.gone += [Found(path, sizes[path], one.step, f"beside {one.path.name}") for path in beside]
    return result


def carry_out(pruning: Pruning, root: Path) -> tuple[list[Found], dict[Path, str]]:
    """Delete what was planned, but for files of runs that have begun meanwhile.

    Returns:
        What was deleted; and the files that could not be, with the system's reason. The others go all the same.
    """
    deleted, failed, busy = [], {}, {}
    for found in pruning.gone:
        run = found.path.parent.parent if found.path.parent.name == "checkpoints" else found.path.parent
        if run not in busy:
            busy[run] = in_progress(run, root, time.time()) is not None
        if busy[run]:
            continue
        try:
            found.path.unlink(missing_ok=True)
        except OSError as error:
            failed[found.path] = str(error.strerror)
        else:
            deleted.append(found)
    return deleted, failed


def _files(root: Path) -> Iterable[tuple[Path, int, float]]:
    """Regular files with the bytes that deleting them frees, and their times; links are not followed."""
    for where, _, names in os.walk(root):
        for name in sorted(names):
            path = Path(where, name)
            try:
                status = path.lstat()
            except OSError:
                continue
            if path.is_file() and not path.is_symlink():
                yield path, status.st_size if status.st_nlink == 1 else 0, status.st_mtime


def _glance(path: Path, run: Path, size: int) -> _Checkpoint | None:
    """What a checkpoint says, without its tensors' contents; None for files that are not whole or not of lit_pwm."""
    try:
        with warnings.catch_warnings(action="ignore"):
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        description, step = content[DESCRIPTION_KEY], content["global_step"]
        reference = description.get(REFERENCE_KEY) or {}
        callbacks = content.get("callbacks") or {}
        if not isinstance(step, int) or not isinstance(callbacks, Mapping):
            return None
        file = reference.get("file")
        return _Checkpoint(path, run, size, step, callbacks, file if isinstance(file, str) else None)
    except Exception:  # damaged or foreign bytes make the reader fail in any way
        return None


def _newest(checkpoints: Iterable[_Checkpoint], run: Path, count: int) -> list[_Checkpoint]:
    own = sorted((one for one in checkpoints if one.run == run), key=lambda one: one.step)
    return own[len(own) - min(count, len(own)) :]


def _needed(checkpoints: list[_Checkpoint], keeping: Keeping) -> dict[Path, str]:
    """Files that no policy deletes."""
    needed: dict[Path, str] = {}
    at = {os.path.realpath(one.path): one.path for one in checkpoints}
    for run in {one.run for one in checkpoints}:
        own = sorted((one for one in checkpoints if one.run == run), key=_rank)
        needed.setdefault(own[-1].path, "the last of its run")
        known: set[str] = set()
        for name, kept in _best_in(own[-1].callbacks, keeping.best, known).items():
            # In the run's own folder too, which may have been moved or copied since.
            places = [name, *(str(one.path) for one in own if one.path.name == Path(name).name)]
            for place in places:
                if (path := at.get(os.path.realpath(place))) is not None and kept:
                    needed[path] = "one of the best of its run"
        for one in own:
            if one.path.stem.startswith("last"):
                needed.setdefault(one.path, "called last")
            elif one.path.stem.startswith("best") and one.path.name not in known:
                needed.setdefault(one.path, "called best")
    for one in checkpoints:
        if one.refers_to is not None and (path := at.get(os.path.realpath(one.refers_to))) is not None:
            needed.setdefault(path, f"{one.path.name} takes its world model from it")
    return needed


def _rank(one: _Checkpoint) -> tuple[int, bool]:
    return one.step, one.path.stem.startswith("last")


def _best_in(callbacks: Mapping[str, Any], count: int | None, known: set[str]) -> dict[str, bool]:
    """The best files by the state of a run's callbacks, and whether they are among so many best.

    Args:
        callbacks: their states.
        count: how many of each metric; all if None.
        known: takes the names of all of them.
    """
    found: dict[str, bool] = {}
    for key, state in callbacks.items():
        if not isinstance(state, Mapping) or "best_model_path" not in state:
            continue
        scores = state.get("best_k_models")
        scores = {str(path): float(score) for path, score in scores.items()} if isinstance(scores, Mapping) else {}
        largest = "'mode': 'max'" in str(key)
        ranked = sorted(scores, key=lambda path: scores[path], reverse=largest)
        kept = {str(state["best_model_path"]), *ranked[:count]}
        for path in (*ranked, str(state["best_model_path"])):
            known.add(Path(path).name)
            found[path] = found.get(path, False) or path in kept
    return found


def _by_policy(one: _Checkpoint, keeping: Keeping) -> str | None:
    if keeping.every is not None and one.step % keeping.every == 0:
        return f"a multiple of {keeping.every} updates"
    return None
