"""What a datamodule has chosen to draw from, and how a model wants it numbered."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, Literal

import numpy as np
from lightning.pytorch import Trainer

from datamodules.episodes import EpisodeTable, choose, open_all, spec_of_all
from datamodules.fingerprint import fingerprint
from datamodules.first_rank import from_first_rank
from datamodules.numbering import Binding
from datamodules.observation_statistics import observation_statistics
from datamodules.second_stream import SecondEpisodes, SecondStream, open_second
from datamodules.splitting import split
from datamodules.storages import widest
from datamodules.store import EpisodeStore


class ChosenData:
    """The part of a datamodule that knows its episodes; a subclass sets the attributes in its constructor.

    Attributes:
        paths: the stores'.
        chosen_tasks: names of the tasks to use; None for all.
        horizon: transitions of a training slice.
        val_fraction: share of each task's episodes that is held out.
        val_horizon: transitions of a validation slice; None for what the episodes allow.
        second: options of a second stream; None without one.
        trainer: which knows the ranks.
    """

    paths: list[str]
    chosen_tasks: list[str] | None
    horizon: int
    val_fraction: float
    val_horizon: int | None
    second: SecondStream | None
    trainer: Trainer | None

    _stores: list[EpisodeStore] | None = None
    _statistics: dict[str, tuple[list[float], list[float]]] | None = None

    # -- what the data holds ----------------------------------------------------------------------------------------
    @property
    def table(self) -> EpisodeTable:
        """The chosen episodes; reads the stores' tables of episodes when first asked for."""
        return self._opened()[1]

    def _opened(self) -> tuple[list[EpisodeStore], EpisodeTable]:
        if self._stores is None:
            stores = open_all(self.paths)
            self._table = choose(stores, self.chosen_tasks)
            self._split = split(self._table, self.val_fraction, self.horizon, self.val_horizon)
            self._binding = Binding(np.arange(len(self._table.tasks)), *widest(stores))
            self._second_episodes: SecondEpisodes | None = None
            if self.second is not None:
                self._second_episodes = open_second(
                    self.second, self.paths, stores, self._table, self._split, self.val_fraction, self.val_horizon
                )
            self._stores = stores
        return self._stores, self._table

    def _of_both_streams(self) -> tuple[list[EpisodeStore], EpisodeTable, np.ndarray]:
        """Stores, episodes, and which of them are held out; the first stream's where it is alone."""
        stores, table = self._opened()
        if (second := self._second_episodes) is None:
            return stores, table, self._split.held
        return second.joined.stores, second.joined.table, second.held_of_both

    @property
    def tasks(self) -> dict[str, tuple[int, int]]:
        """Chosen tasks in the data's order: name → (obs_dim, action_dim), unpadded."""
        return self.table.tasks

    @property
    def all_tasks(self) -> dict[str, tuple[int, int]]:
        """Those tasks, then the second stream's others: what a model that is trained on both has to know."""
        return self._of_both_streams()[1].tasks

    @property
    def second_tasks(self) -> dict[str, tuple[int, int]]:
        """The second stream's tasks; none without one."""
        self._opened()
        return {} if (second := self._second_episodes) is None else second.table.tasks

    @property
    def task_specs(self) -> dict[str, dict[str, Any]]:
        """What the stores say of the environments of the tasks of both streams, of those of which they say anything.

        Raises:
            LitPWMError: they contradict each other.
        """
        stores, table, _ = self._of_both_streams()
        found = {name: spec_of_all([one for one in stores if name in one.tasks], name) for name in table.tasks}
        return {name: spec for name, spec in found.items() if spec}

    @property
    def has_terminations(self) -> bool:
        """Whether any chosen episode, of either stream, ended by termination."""
        return bool(self._of_both_streams()[1].terminated.any())

    def termination_rates(self, stream: Literal["first", "second", "both"] = "first") -> dict[str, float]:
        """The share of transitions that end their episode by termination, over a stream's training episodes.

        Args:
            stream: the first, the second, or both, in which an episode counts once.

        Returns:
            Each task of the stream and its share, 0 for a task without; nothing for a second stream that is not there.
        """
        table, held = self._opened()[1], self._split.held
        if stream == "both":
            _, table, held = self._of_both_streams()
        elif stream == "second":
            if (second := self._second_episodes) is None:
                return {}
            table, held = second.table, second.held
        rates = {}
        for number, name in enumerate(table.tasks):
            mine = (table.task == number) & ~held
            rates[name] = float(table.terminated[mine].sum() / max(1, table.length[mine].sum()))
        return rates

    @property
    def held_out(self) -> np.ndarray:
        """Which of the chosen episodes are held out for validation, bool [E]."""
        self._opened()
        return self._split.held

    @property
    def fingerprint(self) -> str | None:
        """What tells this data from other data, wherever the files lie: stores' contents and tasks, of both streams.

        None where a store has no checksums (version 1).
        """
        stores, table, _ = self._of_both_streams()
        return fingerprint(stores, list(table.tasks))

    def observation_statistics(self) -> dict[str, tuple[list[float], list[float]]]:
        """Mean and standard deviation of each observation entry over the training episodes, for each chosen task.

        Those of both streams count. Made of what the stores hold of each episode, without reading rows. A store of
        version 1 holds nothing of the kind: its rows are read when this is first asked, on several ranks by the first
        alone, for which all must ask.
        """
        if self._statistics is None:
            stores, table, held = self._of_both_streams()
            training = np.flatnonzero(~held)
            scans = any(store.version == 1 for store in stores)
            find = partial(observation_statistics, stores, table, training)
            self._statistics = from_first_rank(find, self.trainer) if scans else find()
        return self._statistics

    # -- what a model makes of it -----------------------------------------------------------------------------------
    def bind_tasks(self, task_names: Sequence[str], obs_dim: int, action_dim: int) -> None:
        """From now on number tasks as `task_names` does, and pad or cut rows to these widths.

        Loaders that exist already follow, from their next iteration on.

        Raises:
            LitPWMError: a chosen task, of either stream, is not among `task_names`, or is wider than the widths.
        """
        self._opened()
        self._binding.bind(self.tasks, task_names, obs_dim, action_dim)
        if (second := self._second_episodes) is not None:
            second.binding.bind(self.all_tasks, task_names, obs_dim, action_dim)
