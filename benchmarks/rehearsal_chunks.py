"""Chunks in exactly TD-MPC2's layout, to rehearse an import with: of real episodes, or of numbers, tens of GB fast.

    python benchmarks/rehearsal_chunks.py walker.h5 --out chunks                  # the episodes of a store of collect's
    python benchmarks/rehearsal_chunks.py --synthetic 8 --out chunks              # 8 GB in chunks of 1 GB

A row holds an observation and the action and reward that led to it; row 0's action is what was in memory before
(finite garbage) and its reward NaN; rows are padded with zeros to the set's widths. `--task-set mt80` cuts episodes of
dm_control's into pieces of 100 steps, each with a row 0 of its own. Episodes of all tasks are mixed, by `--seed`.
tensordict itself loads the files, without lit_pwm:

    python -c "import torch, tensordict; print(torch.load('chunks/chunk_0.pt', weights_only=False))"
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from tensordict_pickles import save_tensordict

from datamodules import EpisodeStore
from datamodules.importers.task_sets import SETS, TaskSet
from lit_pwm.errors import LitPWMError
from lit_pwm.tasks.registry import task_spec

_GARBAGE = 1e6
"""Of this size is what stands in row 0's actions."""


def empty_chunk(count: int, task_set: TaskSet, rows: int, seed: int) -> dict[str, np.ndarray]:
    """Arrays of a chunk without episodes: zeros, and filler in row 0."""
    shape = count, rows
    arrays = {
        "obs": np.zeros((*shape, task_set.obs_dim), np.float32),
        "action": np.zeros((*shape, task_set.action_dim), np.float32),
        "reward": np.zeros(shape, np.float32),
        "task": np.zeros(shape, np.int64),
    }
    garbage = np.random.default_rng(seed).uniform(-_GARBAGE, _GARBAGE, (count, task_set.action_dim))
    arrays["action"][:, 0], arrays["reward"][:, 0] = garbage, np.nan
    return arrays


def pieces_of(store: EpisodeStore, task_set: TaskSet) -> tuple[np.ndarray, int]:
    """Episode and first step of each piece [P, 2], and the actions of each.

    Raises:
        LitPWMError: the store's tasks are not the set's, or its episodes differ in length.
    """
    if unknown := set(store.tasks) - set(task_set.tasks):
        raise LitPWMError(f"The tasks {sorted(unknown)} of {str(store.path)!r} are not in {task_set.name}.")
    lengths = np.unique(store.length)
    length = int(lengths[0]) if task_set.name == "mt30" else min(int(lengths[0]), task_set.rows - 1)
    if len(lengths) > 1 or lengths[0] % length:
        raise LitPWMError(f"The episodes of {str(store.path)!r} have lengths {lengths.tolist()}; a chunk's have one.")
    starts = range(0, int(lengths[0]), length)
    return np.array([(number, start) for number in range(len(store)) for start in starts]), length


def chunks_of(store: EpisodeStore, task_set: TaskSet, chunks: int, seed: int) -> Iterator[dict[str, np.ndarray]]:
    """A store's episodes, mixed, in chunks."""
    pieces, length = pieces_of(store, task_set)
    order = np.random.default_rng(seed).permutation(len(pieces))
    for number, part in enumerate(np.array_split(order, chunks)):
        arrays = empty_chunk(len(part), task_set, length + 1, seed + number)
        for place, (index, start) in enumerate(pieces[part].tolist()):
            episode = store[index]
            obs_dim, action_dim = store.tasks[episode.task]
            stop = start + length
            arrays["obs"][place, :, :obs_dim] = episode.obs[start : stop + 1]
            arrays["action"][place, 1:, :action_dim] = episode.action[start:stop]
            arrays["action"][place, 0, action_dim:] = 0
            arrays["reward"][place, 1:] = episode.reward[start:stop]
            arrays["task"][place] = task_set.tasks.index(episode.task)
        yield arrays


def synthetic_chunks(gigabytes: float, task_set: TaskSet, each: float, seed: int) -> Iterator[dict[str, np.ndarray]]:
    """Chunks of numbers that no environment made: each task's episodes a window of one noise, tasks taking turns."""
    size = task_set.rows * (4 * (task_set.obs_dim + task_set.action_dim + 1) + 8)
    total, most = round(gigabytes * 1e9 / size), max(1, round(each * 1e9 / size))
    dims = [(spec.obs_dim, spec.action_dim) for spec in map(task_spec, task_set.tasks)]
    drawn = np.random.default_rng(seed)
    tile = 1024
    noise = drawn.standard_normal((tile, task_set.rows, task_set.obs_dim), np.float32)
    action = drawn.uniform(-1, 1, (tile, task_set.rows, task_set.action_dim)).astype(np.float32)
    task = np.arange(tile) % len(dims)
    for place, number in enumerate(task.tolist()):
        noise[place, :, dims[number][0] :] = 0
        action[place, :, dims[number][1] :] = 0
    for first in range(0, total, most):
        arrays = empty_chunk(min(most, total - first), task_set, task_set.rows, seed + first)
        for start in range(0, len(arrays["task"]), tile):
            count = min(tile, len(arrays["task"]) - start)
            arrays["obs"][start : start + count] = noise[:count]
            arrays["action"][start : start + count, 1:] = action[:count, 1:]
            arrays["task"][start : start + count] = task[:count, None]
            # The first number of each episode is its own, so that one that is missing or there twice is seen.
            arrays["obs"][start : start + count, 0, 0] = first + start + np.arange(count)
            arrays["reward"][start : start + count, 1:] = np.abs(noise[:count, 1:, 0])
        yield arrays


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store", nargs="?", help="a store of dm_control's episodes, as collect makes it")
    parser.add_argument("--synthetic", type=float, metavar="GB", help="numbers instead, so many GB")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="the folder of chunks")
    parser.add_argument("--task-set", choices=list(SETS), default="mt30")
    parser.add_argument("--chunks", type=int, default=4, metavar="N", help="files (of a store's episodes)")
    parser.add_argument("--chunk-gb", type=float, default=1.0, metavar="GB", help="size of each file of --synthetic")
    parser.add_argument("--legacy", action="store_true", help="torch's format of before 1.6, which cannot be mapped")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(words)
    if (given.store is None) == (given.synthetic is None):
        parser.error("name a store, or --synthetic GB")
    task_set = SETS[given.task_set]
    if given.store is not None:
        made = chunks_of(EpisodeStore(given.store), task_set, given.chunks, given.seed)
    else:
        made = synthetic_chunks(given.synthetic, task_set, given.chunk_gb, given.seed)
    given.out.mkdir(parents=True, exist_ok=True)
    start, written = time.monotonic(), 0
    for number, arrays in enumerate(made):
        path = given.out / f"chunk_{number}.pt"
        save_tensordict(path, arrays, zipped=not given.legacy)
        written += path.stat().st_size
        rate = written / 1e6 / (time.monotonic() - start)
        print(f"{path}: {len(arrays['task']):,} episodes, {written / 1e9:.2f} GB in all, {rate:.0f} MB/s", flush=True)


if __name__ == "__main__":
    main()
