"""New stores of other stores' episodes: merged, chosen, split."""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from datamodules.episodes import choose, copies, open_all, spec_of_all
from datamodules.importers.importer import ImportedEpisode, ImportedTask, Plan
from datamodules.info import episode_returns
from datamodules.plan_writing import Output, write_stores
from datamodules.store import EpisodeStore
from lit_pwm.errors import LitPWMError, did_you_mean
from lit_pwm.paths import absolute

_ROUNDING = 1e-9


def merge(
    paths: Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    progress: bool = True,
    say: Callable[[str], None] = lambda sentence: None,
) -> EpisodeStore:
    """All episodes of some stores in a new one, store after store.

    Args:
        paths: the stores.
        out: the new store's file.
        progress: show a progress bar on stderr.
        say: takes sentences that the user is to be told.

    Raises:
        LitPWMError: a store cannot be read or is named twice, they disagree on a task, or nothing can be written.
    """
    stores = open_all([os.fspath(path) for path in paths], "the merge")
    for notice in copies(stores):
        say(notice)
    plan = plan_of(stores)
    (store,) = write_stores([Output(absolute(out), plan, np.arange(len(plan.task)), {"verb": "merge"})], progress)
    return store


def subset(
    path: str | os.PathLike[str],
    out: str | os.PathLike[str],
    tasks: Sequence[str] | None = None,
    episodes: int | None = None,
    min_return: float | None = None,
    max_return: float | None = None,
    source: str | None = None,
    progress: bool = True,
) -> EpisodeStore:
    """Some episodes of a store in a new one, in the same order.

    Args:
        path: the store.
        out: the new store's file.
        tasks: of these tasks only.
        episodes: of what the others leave, the first so many of each task.
        min_return: of at least this return.
        max_return: of at most this return.
        source: of what this acted in only.
        progress: show a progress bar on stderr.

    Raises:
        LitPWMError: a task or source is not there, a return is asked of pieces of episodes, or nothing is left.
    """
    store = EpisodeStore(path)
    kept = np.ones(len(store), bool)
    if tasks is not None:
        choose([store], tasks)  # refuses those that have no episodes
        kept &= np.isin(store.task, [store.task_names.index(name) for name in tasks])
    if source is not None:
        sources = np.array(store.sources, dtype=object)
        if source not in (known := sorted(set(sources))):
            raise LitPWMError(f"Nothing called {source!r} acted in {str(store.path)!r}. {did_you_mean(source, known)}")
        kept &= sources == source
    if min_return is not None or max_return is not None:
        _require_whole(store, kept)
        returns = episode_returns(store)
        kept &= (returns >= (-np.inf if min_return is None else min_return)) & (
            returns <= (np.inf if max_return is None else max_return)
        )
    if episodes is not None:
        for task in range(len(store.tasks)):
            kept[np.flatnonzero(kept & (store.task == task))[episodes:]] = False
    if not kept.any():
        raise LitPWMError(f"None of the {len(store):,} episodes of {str(store.path)!r} is left. Choose less narrowly.")
    plan = plan_of([store])
    chosen = {"tasks": tasks, "episodes": episodes, "returns": [min_return, max_return], "source": source}
    (made,) = write_stores([Output(absolute(out), plan, np.flatnonzero(kept), {"verb": "subset", **chosen})], progress)
    return made


def split(
    path: str | os.PathLike[str],
    outs: Sequence[str | os.PathLike[str]],
    shares: Sequence[float] | None = None,
    seed: int = 0,
    progress: bool = True,
) -> list[EpisodeStore]:
    """A store's episodes dealt to new ones, each task's by itself: every episode is in one of them.

    Args:
        path: the store.
        outs: the new stores' files, at least two.
        shares: of each, summing to 1; equal if not given.
        seed: of who gets what.
        progress: show a progress bar on stderr.

    Raises:
        LitPWMError: the shares are no such, or a new store would get no episode.
    """
    store, finals = EpisodeStore(path), [absolute(out) for out in outs]
    shares = list(shares) if shares is not None else [1 / max(len(finals), 1)] * len(finals)
    if len(finals) < 2 or len(set(finals)) < len(finals):
        raise LitPWMError(f"A split needs two different new stores or more (--out A.h5 B.h5), not {len(set(finals))}.")
    if len(shares) != len(finals) or min(shares) <= 0 or abs(sum(shares) - 1) > 1e-6:
        raise LitPWMError(
            f"The shares of a split (--shares) are {', '.join(f'{share:g}' for share in shares)} for {len(finals)} new "
            f"stores; give a positive one for each, that sum to 1."
        )
    part = np.empty(len(store), np.int64)
    for task, name in enumerate(store.tasks):
        own = np.flatnonzero(store.task == task)
        dealt = np.random.default_rng([seed, zlib.crc32(name.encode())]).permutation(own)
        edges = np.rint(np.cumsum(shares) * len(own) - _ROUNDING).astype(np.int64)
        part[dealt] = np.searchsorted(edges[:-1], np.arange(len(own)), side="right")
    plan, settings = plan_of([store]), {"verb": "split", "shares": shares, "seed": seed}
    outputs = [
        Output(final, plan, np.flatnonzero(part == n), {**settings, "part": n}) for n, final in enumerate(finals)
    ]
    for output in outputs:
        if not len(output.numbers):
            raise LitPWMError(
                f"The new store {str(output.final)!r} would get none of the {len(store):,} episodes. Give it a larger "
                f"share, or split a larger store."
            )
    return write_stores(outputs, progress)


def plan_of(stores: Sequence[EpisodeStore]) -> Plan:
    """What stores hold, as what can be written.

    Raises:
        LitPWMError: they disagree on a task's widths or its environment, or on action repeats.
    """
    table = choose(stores, None)
    tasks = {name: _task(stores, name, *dims) for name, dims in table.tasks.items()}
    known = np.concatenate([store.last_obs_known for store in stores])
    terminated = np.concatenate([store.terminated() for store in stores])
    sources = [source for store in stores for source in store.sources]
    starts = np.cumsum([0, *(len(store) for store in stores)])

    def episodes(numbers: np.ndarray) -> Iterator[ImportedEpisode]:
        for number in numbers.tolist():
            place = int(np.searchsorted(starts, number, side="right")) - 1
            obs, action, reward = _rows(stores[place], number - int(starts[place]))
            yield ImportedEpisode(obs, action, reward, bool(terminated[number]), bool(known[number]))

    return Plan(
        tasks=tasks,
        length=table.length,
        task=table.task,
        source=sources,
        episodes=episodes,
        action_repeat=stores[0].action_repeat,
        files=[store.path for store in stores],
        last_obs_known=known,
        moved=(sum(store.clipped_actions for store in stores), sum(store.clamped_rewards for store in stores)),
    )


def _rows(store: EpisodeStore, index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """An episode's arrays.

    `store[index]` reads its source from the file too, which takes far longer.
    """
    obs_dim, action_dim = store.tasks[store.task_names[store.task[index]]]
    start, stop = int(store.offset[index]), int(store.offset[index] + store.length[index])
    obs, action = store.column("obs").read(start, stop + 1), store.column("action").read(start, stop)
    return obs[:, :obs_dim], action[:, :action_dim], store.column("reward").read(start, stop)


def _task(stores: Sequence[EpisodeStore], name: str, obs_dim: int, action_dim: int) -> ImportedTask:
    """A task of some stores, those that have it agreeing on its environment as far as they say."""
    having = [store for store in stores if name in store.tasks]
    whole = all(store.whole_episodes[store.task_names.index(name)] for store in having)
    spec, repeat = spec_of_all(having, name), having[0].action_repeat_of(name)
    if repeat != stores[0].action_repeat:  # which will be the new store's
        spec["action_repeat"] = repeat
    return ImportedTask(obs_dim, action_dim, spec=spec, whole_episodes=whole)


def _require_whole(store: EpisodeStore, kept: np.ndarray) -> None:
    """Make sure that chosen episodes have returns.

    Raises:
        LitPWMError: some are pieces.
    """
    pieces = [name for task, name in enumerate(store.tasks) if not store.whole_episodes[task]]
    there = [name for name in pieces if (kept & (store.task == store.task_names.index(name))).any()]
    if there:
        raise LitPWMError(
            f"The episodes of {', '.join(there[:5])} in {str(store.path)!r} are pieces of episodes, which have no "
            f"returns to choose by. Leave --min-return and --max-return out, or choose other tasks with --tasks."
        )
