"""What is made sure of batches whose rows lie in files, which may be wrong, change, or shrink."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from datamodules.episodes import EpisodeTable
from datamodules.sampler import Windows
from datamodules.store import EpisodeStore
from datamodules.values import ACTION_LIMIT, REWARD_LIMIT
from lit_pwm.batch import Batch
from lit_pwm.errors import LitPWMError

_LIMITS = {
    "obs": (np.finfo(np.float32).max, "not finite"),
    "action": (ACTION_LIMIT, "beyond [-1, 1], in which policies act"),
    "reward": (REWARD_LIMIT, f"beyond ±{REWARD_LIMIT:,.1f}, the range of a model's bins"),
}


class Guard:
    """Looks at the files before a batch is gathered, and at the batch's values before they are trained on.

    It costs a question to the file system for each store, and one pass over the batch for its extremes: 0.02 ms for 256
    slices of 17 steps of 24 entries. Where tasks have different widths, a second one looks at what lies beyond them.

    Args:
        stores: the files.
        table: the chosen episodes.
        batches: step → windows of the table's episodes.
        task_ids: gives the number that batches have for each of the table's tasks; its index if not given.
        second: looks at the second stream's batches and at the files of both streams.
    """

    def __init__(
        self,
        stores: Sequence[EpisodeStore],
        table: EpisodeTable,
        batches: Callable[[int], Windows],
        task_ids: Callable[[], np.ndarray] | None = None,
        second: Guard | None = None,
    ) -> None:
        self._second = second
        self._stores, self._table, self._batches = stores, table, batches
        self._task_ids = task_ids or (lambda: np.arange(len(table.tasks)))
        widths = np.array(list(table.tasks.values()), np.int64)
        padded = {"obs": max(s.obs_dim for s in stores), "action": max(s.action_dim for s in stores)}
        self._narrow = {
            name: own for (name, width), own in zip(padded.items(), widths.T, strict=True) if (own < width).any()
        }

    def require_unchanged(self) -> None:
        """Make sure that the files are those that were opened: mapped rows that are gone end the process (SIGBUS).

        Raises:
            LitPWMError: one is not.
        """
        for store in self._stores if self._second is None else self._second._stores:
            store.require_unchanged()

    def look(self, batch: Batch, step: int) -> None:
        """Make sure that a batch can be trained on.

        Raises:
            LitPWMError: a value is not finite or out of range, or is one of padding and not 0; names its store, episode
                and row.
        """
        parts = {"obs": batch["obs"], "action": batch["action"], "reward": batch["reward"]}
        for name, (limit, fault) in _LIMITS.items():
            values: np.ndarray = parts[name].numpy()
            if values.size and not (values.min() >= -limit and values.max() <= limit):  # NaN compares as neither
                self._refuse(name, values, ~(np.abs(values) <= limit), fault, self._batches(step))
        for name in self._narrow:
            self._look_at_padding(name, parts[name].numpy(), batch["task"].numpy(), step)
        if self._second is not None and "second" in batch:
            self._second.look(batch["second"], step)

    def _look_at_padding(self, name: str, values: np.ndarray, task: np.ndarray, step: int) -> None:
        columns, own, ids = np.arange(values.shape[2]), self._narrow[name], self._task_ids()
        widths = np.full(1 + max(ids.max(), task.max()), values.shape[2])
        widths[ids] = own
        if not ((values != 0).any(axis=0) & (columns >= widths[task, None])).any():
            return
        windows = self._batches(step)  # a batch may have been made before its tasks were numbered anew
        wrong = (values != 0) & (columns >= own[self._table.task[windows.episode], None])
        if wrong.any():
            self._refuse(name, values, wrong, "not 0 in padding columns", windows)

    def _refuse(self, name: str, values: np.ndarray, wrong: np.ndarray, fault: str, windows: Windows) -> None:
        place = tuple(int(i) for i in np.argwhere(wrong)[0])
        table, episode = self._table, int(windows.episode[place[1]])
        path, task = self._stores[table.store[episode]].path, list(table.tasks)[table.task[episode]]
        value, row = values[place], int(windows.start[place[1]]) + place[0]
        raise LitPWMError(
            f"The episode store {str(path)!r} cannot be trained on: the {name} of episode {table.number[episode]} "
            f"({task!r}), row {row}, is {value if not np.isfinite(value) else f'{value:.7g}'}, {fault}. `lit-pwm data "
            f"check {path}` lists all faults; write the store anew without them, or leave the task out with data.tasks."
        )
