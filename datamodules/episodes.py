"""The episodes that a datamodule has chosen from its stores."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from lightning.pytorch.utilities.rank_zero import rank_zero_warn

from datamodules.layout import alike_names
from datamodules.store import EpisodeStore
from lit_pwm.errors import LitPWMError, did_you_mean
from lit_pwm.tasks.stored_specs import differences, merged


@dataclass(frozen=True, eq=False)
class EpisodeTable:
    """E episodes from several stores.

    Attributes:
        tasks: chosen task name → (obs_dim, action_dim), in the stores' order.
        store: index of each episode's store [E].
        number: index of each episode in its store [E].
        offset: first row of each episode in its store [E].
        length: actions T of each episode [E].
        task: index of each episode's task in `tasks` [E].
        last_obs_known: whether each episode's last observation was recorded, bool [E].
        terminated: whether each episode ended by termination, bool [E].
    """

    tasks: dict[str, tuple[int, int]]
    store: np.ndarray
    number: np.ndarray
    offset: np.ndarray
    length: np.ndarray
    task: np.ndarray
    last_obs_known: np.ndarray
    terminated: np.ndarray

    def __len__(self) -> int:
        """The number of episodes."""
        return len(self.offset)

    def runs(self) -> list[tuple[int, int]]:
        """Runs [first, last) of episodes that lie one after another in one store."""
        breaks = np.flatnonzero((np.diff(self.number) != 1) | (np.diff(self.store) != 0)) + 1
        edges = [0, *breaks.tolist(), len(self)]
        return list(itertools.pairwise(edges))


def choose(stores: Sequence[EpisodeStore], names: Sequence[str] | None) -> EpisodeTable:
    """The episodes of some tasks, store after store.

    Args:
        stores: where to look; a task is the same in all if its name is.
        names: the tasks; None for all that have episodes.

    Raises:
        LitPWMError: a task has no episodes, or other widths in one store than in another.
    """
    dims: dict[str, tuple[int, int]] = {}
    counts: dict[str, int] = {}
    repeats: dict[str, set[int]] = {}
    for store in stores:
        episodes = np.bincount(store.task, minlength=len(store.tasks)).tolist()
        for count, (name, widths) in zip(episodes, store.tasks.items(), strict=True):
            if dims.setdefault(name, widths) != widths:
                raise LitPWMError(
                    f"The task {name!r} has widths (obs, action) {widths} in the store {str(store.path)!r} and "
                    f"{dims[name]} in one before it. Stores that are used together must agree."
                )
            repeats.setdefault(name, set()).add(store.action_repeat_of(name))
            if len(repeats[name]) > 1:
                raise LitPWMError(
                    f"Episodes of the task {name!r} in the stores {_listed(stores)} were collected with different "
                    f"action repeats, {sorted(repeats[name])}, so that their actions and rewards mean different "
                    f"things. Use stores in which a task has one action repeat."
                )
            counts[name] = counts.get(name, 0) + count
    if alike := alike_names(counts):
        raise LitPWMError(
            f"The tasks {alike[0]!r} and {alike[1]!r} of {_listed(stores)} differ in Unicode normalisation alone, and "
            f"would be two tasks that look the same. Write one of the stores anew with the other's name."
        )
    there = [name for name, count in counts.items() if count]
    if not there or (names is not None and not names):
        raise LitPWMError(f"No episodes are chosen from {_listed(stores)}. {did_you_mean('', there)}")
    for name in names or ():
        if name not in there:
            raise LitPWMError(
                f"There are no episodes of the task {name!r} in {_listed(stores)}. {did_you_mean(name, there)}"
            )
    wanted = set(there if names is None else names)
    chosen = {name: dims[name] for name in there if name in wanted}
    numbers = {name: number for number, name in enumerate(chosen)}
    parts = []
    for index, store in enumerate(stores):
        lookup = np.array([numbers.get(name, -1) for name in store.tasks])
        task = lookup[store.task]
        number = np.flatnonzero(task >= 0)
        own = store.offset, store.length, task, store.last_obs_known, store.terminated()
        parts.append((np.full(len(number), index), number, *(column[number] for column in own)))
    return EpisodeTable(chosen, *(np.concatenate(column) for column in zip(*parts, strict=True)))


def spec_of_all(stores: Sequence[EpisodeStore], name: str) -> dict[str, Any]:
    """What stores that have a task say of its environment together.

    Raises:
        LitPWMError: they contradict each other.
    """
    for one, other in itertools.combinations(stores, 2):
        if differing := differences(one.task_specs[name], other.task_specs[name]):
            there, here = ({key: store.task_specs[name][key] for key in differing} for store in (one, other))
            raise LitPWMError(
                f"The task {name!r} is {there} in {str(one.path)!r} and {here} in {str(other.path)!r}: not the same "
                f"environment. Use one of them, or give the task of one another name when it is collected or imported."
            )
    return merged(store.task_specs[name] for store in stores)


def _listed(stores: Sequence[EpisodeStore]) -> str:
    return ", ".join(repr(str(store.path)) for store in stores)


def open_all(paths: Sequence[str], option: str = "data.store") -> list[EpisodeStore]:
    """Open stores that are used together.

    Args:
        paths: their files.
        option: where they are named, for errors.

    Raises:
        LitPWMError: one cannot be read, or two are the same file, whose episodes would count twice, and be on both
            sides of the split.
    """
    stores: list[EpisodeStore] = []
    for path in paths:
        store = EpisodeStore(path)
        for other in stores:
            if store.identity[:2] == other.identity[:2]:
                raise LitPWMError(
                    f"The stores {str(other.path)!r} and {str(store.path)!r} of {option} are the same file, which "
                    f"would be used twice. Name each store once."
                )
        stores.append(store)
    return stores


def copies(stores: Sequence[EpisodeStore]) -> list[str]:
    """A notice of each two stores whose files differ and whose content is the same, as far as versions tell."""
    return [
        f"The stores {str(one.path)!r} and {str(other.path)!r} hold the same episodes, which count twice and may be on "
        f"both sides of the split."
        for one, other in itertools.combinations(stores, 2)
        if one.content is not None and one.content == other.content
    ]


def warn_of_chunks(stores: Sequence[EpisodeStore]) -> None:
    """Say once, on the first rank, which stores are read slowly because their rows lie in chunks."""
    chunked = [store for store in stores if store.is_chunked]
    if chunked:
        rank_zero_warn(
            f"The rows of {_listed(chunked)} lie in chunks, perhaps compressed, so that slices are read 10 to 100 "
            f"times as slowly as from a store that can be mapped. Write it anew with `lit-pwm data subset`, or set "
            f"data.storage to 'ram', where it is read once."
        )
