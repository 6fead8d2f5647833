"""What a store holds, and whether it is sound."""

from __future__ import annotations

import itertools
import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import h5py
import numpy as np

from datamodules.store import EPISODE_COLUMNS, ROW_COLUMNS, EpisodeStore, open_store

_BLOCK_ROWS = 65_536
_HISTOGRAM_BINS = 10


@dataclass(frozen=True, eq=False)
class TaskInfo:
    """What a store holds of one task.

    Attributes:
        obs_dim: width of observations.
        action_dim: width of actions.
        returns: sum of rewards of each episode [E].
        lengths: actions of each episode [E].
        terminated: episodes that ended by termination.
        sources: what acted → number of episodes.
    """

    obs_dim: int
    action_dim: int
    returns: np.ndarray
    lengths: np.ndarray
    terminated: int
    sources: Counter[str]

    def histogram(self, bins: int = _HISTOGRAM_BINS) -> tuple[np.ndarray, np.ndarray]:
        """Episodes in each of `bins` equal ranges of return, and the bins + 1 edges."""
        return np.histogram(self.returns, bins=bins)


@dataclass(frozen=True, eq=False)
class StoreInfo:
    """What a store holds.

    Attributes:
        path: the file.
        num_bytes: its size.
        num_episodes: episodes of all tasks.
        num_rows: rows of all episodes.
        num_transitions: actions of all episodes.
        action_repeat: control steps for each action.
        tasks: name → what there is of it, in index order.
    """

    path: Path
    num_bytes: int
    num_episodes: int
    num_rows: int
    num_transitions: int
    action_repeat: int
    tasks: dict[str, TaskInfo]


def info(path: str | os.PathLike[str]) -> StoreInfo:
    """What a store holds; reads its rewards once, a block at a time.

    Raises:
        LitPWMError: there is no such file, or it is no sound episode store.
    """
    store = EpisodeStore(path)
    returns = _returns(store)
    terminated, sources = store.terminated(), np.array(store.sources, dtype=object)
    tasks = {}
    for number, (name, (obs_dim, action_dim)) in enumerate(store.tasks.items()):
        own = store.task == number
        tasks[name] = TaskInfo(
            obs_dim, action_dim, returns[own], store.length[own], int(terminated[own].sum()), Counter(sources[own])
        )
    return StoreInfo(
        store.path,
        store.path.stat().st_size,
        len(store),
        store.num_rows,
        store.num_transitions,
        store.action_repeat,
        tasks,
    )


def _returns(store: EpisodeStore) -> np.ndarray:
    """Sum of rewards of each episode, float64 [E]."""
    returns, reward = np.empty(len(store)), store.column("reward")
    for first, last in _runs(store.length + 1):
        start, stop = int(store.offset[first]), int(store.offset[last - 1] + store.length[last - 1] + 1)
        values = reward.read(start, stop).astype(np.float64)
        values[store.offset[first:last] + store.length[first:last] - start] = 0.0  # the last rows' NaN
        returns[first:last] = np.add.reduceat(values, store.offset[first:last] - start)
    return returns


def _runs(rows: np.ndarray) -> list[tuple[int, int]]:
    """Runs [first, last) of episodes that hold about a block of rows each."""
    block = (np.cumsum(rows) - 1) // _BLOCK_ROWS
    edges = [0, *(np.flatnonzero(np.diff(block)) + 1).tolist(), len(rows)]
    return [(first, last) for first, last in itertools.pairwise(edges) if last > first]


# -- faults -----------------------------------------------------------------------------------------------------------
@dataclass
class _Tally:
    """Faults of one kind: how many rows have it, in which episodes, and the first place."""

    rows: int = 0
    episodes: set[int] = field(default_factory=set)
    first: tuple[int, int] | None = None  # episode, row in it


def check(path: str | os.PathLike[str]) -> list[str]:
    """All faults of a store, those of one kind grouped into one sentence; none means that it is sound.

    Reads everything once, a block at a time.

    Raises:
        LitPWMError: there is no such file, or it is no episode store of this version.
    """
    with open_store(path) as file:
        faults = _structure(file)
        if faults:
            return faults  # without sound structure the rest cannot be read
        faults = _episodes(file)
        if not any(fault.startswith(("episode/offset", "episode/length")) for fault in faults):
            faults += _rows(file)
        return faults


def _structure(file: h5py.File) -> list[str]:
    """Attributes and datasets: whether they are there, their types and shapes."""
    faults = [
        f"the attribute {name!r} is missing"
        for name in ("task_names", "obs_dims", "action_dims", "action_repeat")
        if name not in file.attrs
    ]
    if not faults:
        counts = {name: len(np.atleast_1d(file.attrs[name])) for name in ("task_names", "obs_dims", "action_dims")}
        if len(set(counts.values())) > 1:
            faults.append(f"the attributes of the tasks differ in length: {counts}")
        names = [str(name) for name in np.atleast_1d(file.attrs["task_names"])]
        if len(set(names)) < len(names):
            faults.append(f"task names occur twice: {', '.join(n for n, c in Counter(names).items() if c > 1)}")
        if int(file.attrs["action_repeat"]) < 1:
            faults.append(f"action_repeat is {file.attrs['action_repeat']}, less than 1")
    types = {**ROW_COLUMNS, **{f"episode/{name}": dtype for name, dtype in EPISODE_COLUMNS.items()}}
    dimensions = {name: 2 if name in ("obs", "action") else 1 for name in (*types, "episode/source")}
    lengths: dict[str, int] = {}
    for name, count in dimensions.items():
        if not isinstance(file.get(name), h5py.Dataset):
            faults.append(f"the dataset {name!r} is missing")
            continue
        dataset = file[name]
        if name in types and dataset.dtype != types[name]:
            faults.append(f"{name} has type {dataset.dtype}, and should have {np.dtype(types[name])}")
        if name == "episode/source" and h5py.check_string_dtype(dataset.dtype) is None:
            faults.append(f"{name} has type {dataset.dtype}, and should be text")
        if len(dataset.shape) != count:
            faults.append(f"{name} has {len(dataset.shape)} dimensions, and should have {count}")
        else:
            lengths[name] = dataset.shape[0]
    for what, named in (("rows", list(ROW_COLUMNS)), ("episodes", [n for n in dimensions if n.startswith("episode/")])):
        found = {name: lengths[name] for name in named if name in lengths}
        if len(set(found.values())) > 1:
            faults.append(f"the datasets of {what} differ in length: {found}")
    if not faults:
        for name, attribute in (("obs", "obs_dims"), ("action", "action_dims")):
            widest, width = int(np.max(file.attrs[attribute], initial=0)), file[name].shape[1]
            if widest > width or int(np.min(file.attrs[attribute], initial=1)) < 1:
                faults.append(f"{attribute} {file.attrs[attribute].tolist()} do not fit the width {width} of {name}")
    return faults


def _episodes(file: h5py.File) -> list[str]:
    """The table of episodes: whether they lie one after another, and whether their tasks exist."""
    offset, length, task = (file[f"episode/{name}"][:] for name in ("offset", "length", "task"))
    faults, count = [], len(file["obs"])
    if not len(offset):
        faults.append("there is no episode")
    expected = np.cumsum(length) - length
    for name, wrong in (
        ("episode/length holds episodes of fewer than 2 rows", length < 2),
        ("episode/offset is not where the episode before ends", offset != expected),
        ("episode/task points to no task", (task < 0) | (task >= len(file.attrs["task_names"]))),
    ):
        if wrong.any():
            faults.append(f"{name}: {int(wrong.sum())} of {len(wrong)} (first: episode {int(np.argmax(wrong))})")
    if int(length.sum()) != count:
        faults.append(f"episode/length sums to {int(length.sum())} rows, but there are {count}")
    return faults


def _rows(file: h5py.File) -> list[str]:
    """Every row: finite where it must be, NaN and zero where it must be, `terminated` on last rows only."""
    offset, length = file["episode/offset"][:], file["episode/length"][:]
    obs_dims, action_dims = np.atleast_1d(file.attrs["obs_dims"]), np.atleast_1d(file.attrs["action_dims"])
    # A task index that points nowhere has been reported; clipping it lets the rest be looked at.
    task = np.clip(file["episode/task"][:], 0, len(obs_dims) - 1)
    obs_columns, action_columns = np.arange(file["obs"].shape[1]), np.arange(file["action"].shape[1])
    tallies: dict[str, _Tally] = {}
    for first, last in _runs(length):
        start, stop = int(offset[first]), int(offset[last - 1] + length[last - 1])
        episode = np.repeat(np.arange(first, last), length[first:last])
        row = np.arange(start, stop) - offset[episode]
        is_last = row == length[episode] - 1
        obs, action = file["obs"][start:stop], file["action"][start:stop]
        reward, terminated = file["reward"][start:stop], file["terminated"][start:stop]
        obs_padding = obs_columns >= obs_dims[task[episode], None]
        action_padding = action_columns >= action_dims[task[episode], None]
        missing_action = ~(np.isnan(action) | action_padding).all(axis=1)
        kinds = {
            "obs is not finite": (~np.isfinite(obs) & ~obs_padding).any(axis=1),
            "obs is not 0 in padding columns": ((obs != 0) & obs_padding).any(axis=1),
            "action is not finite before the last row": (~np.isfinite(action) & ~action_padding).any(axis=1) & ~is_last,
            "action is not NaN in the last row": missing_action & is_last,
            "action is not 0 in padding columns": ((action != 0) & action_padding).any(axis=1),
            "reward is not finite before the last row": ~np.isfinite(reward) & ~is_last,
            "reward is not NaN in the last row": ~np.isnan(reward) & is_last,
            "terminated is neither 0 nor 1": terminated > 1,
            "terminated is set before the last row": (terminated != 0) & ~is_last,
        }
        for kind, wrong in kinds.items():
            if wrong.any():
                tally = tallies.setdefault(kind, _Tally())
                tally.rows += int(wrong.sum())
                tally.episodes.update(np.unique(episode[wrong]).tolist())
                place = int(np.argmax(wrong))
                tally.first = tally.first or (int(episode[place]), int(row[place]))
    faults = []
    for kind, tally in tallies.items():
        assert tally.first is not None
        where = f"first: episode {tally.first[0]}, row {tally.first[1]}"
        faults.append(f"{kind}: {tally.rows} rows in {len(tally.episodes)} episodes ({where})")
    return faults
