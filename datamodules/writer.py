"""Writing an episode store: episodes are appended to shards, from which the final file is assembled."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Mapping
from types import TracebackType

from numpy.typing import ArrayLike

from datamodules.assembling import finish
from datamodules.incoming import checked_action_repeat, checked_rows, checked_specs, checked_tasks
from datamodules.shard_folder import ShardFolder
from lit_pwm.errors import LitPWMError
from lit_pwm.options import check_options
from lit_pwm.paths import absolute
from lit_pwm.tasks.registry import TaskSpec
from lit_pwm.tasks.stored_specs import StoredSpec


class EpisodeWriter:
    """Writes an episode store, to be used in a `with` statement.

    Each appended episode is safe from the process being killed as soon as `append` returns. Leaving the block without
    an exception assembles the final file, checks it, and gives it its name. After a kill or an exception there is no
    final file, and the episodes wait in the folder `PATH.shards`: a writer of the same path and tasks that is asked to
    resume continues there, and `len(writer)` says how many episodes it found, so that the caller can go on with the
    next. One that is not asked to refuses them: a script that begins again would store them twice.

    Args:
        path: the final file.
        tasks: task name → (obs_dim, action_dim).
        action_repeat: control steps for each action.
        specs: how the tasks' environments are made, as far as that is known, which the store keeps; of tasks that are
            registered with these widths and this action repeat, their own if not given.
        resume: go on after the episodes that an interrupted writer has left, if there are any.
        clamp_rewards: clamp rewards beyond the range of a model's bins, ±22,025.5 (symexp(10)), instead of refusing
            them; the store records how many.

    Raises:
        LitPWMError: the final file exists, another process is writing it, its shards hold other tasks, an interrupted
            writer left episodes and `resume` is not set, or an argument is not one of those above.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        tasks: Mapping[str, tuple[int, int]],
        action_repeat: int = 2,
        resume: bool = False,
        clamp_rewards: bool = False,
        specs: Iterable[TaskSpec] | None = None,
    ) -> None:
        check_options(EpisodeWriter, {"resume": resume, "clamp_rewards": clamp_rewards})
        self.path, self.tasks = absolute(path), checked_tasks(tasks)
        self._action_repeat = checked_action_repeat(action_repeat)
        self._clamp_rewards, self._closed = clamp_rewards, False
        self._numbers = {name: number for number, name in enumerate(self.tasks)}
        self._specs = checked_specs(self.tasks, self._action_repeat, specs)
        self._folder = ShardFolder(self.path, store_settings(self.tasks, self._action_repeat, self._specs))
        found = self._folder.records()
        if found and not resume:
            self._folder.close()
            raise LitPWMError(
                f"The folder {str(self._folder.path)!r} holds {len(found)} episodes of a writer of {str(self.path)!r} "
                f"that was interrupted. Go on after them with EpisodeWriter(…, resume=True), where len(writer) says "
                f"how many there are, or remove the folder to start anew."
            )
        self._count = next(key for key in itertools.count() if key not in found)
        self._shard = self._folder.new_shard()

    def __len__(self) -> int:
        """Episodes written so far, those of an earlier, interrupted writer included."""
        return self._count

    def append(
        self,
        *,
        task: str,
        obs: ArrayLike,
        action: ArrayLike,
        reward: ArrayLike,
        terminated: bool = False,
        source: str = "unknown",
    ) -> None:
        """Add an episode of T actions.

        Args:
            task: one of the writer's tasks.
            obs: observations [T+1, O].
            action: actions [T, A]; action t was taken at observation t.
            reward: rewards [T]; reward t was earned by action t.
            terminated: whether it ended by termination rather than by its time limit.
            source: what acted.

        Raises:
            LitPWMError: the task is not known, the arrays are not numbers of the right shapes, all finite, actions lie
                beyond ±1 by more than 1e-6 (what is less is clipped, and counted in the store), rewards lie beyond
                the range of a model's bins, the disk is full, or the writer has been closed.
        """
        if self._closed:
            raise LitPWMError(
                f"The writer of {str(self.path)!r} has been closed. Append episodes within its `with` block."
            )
        rows = checked_rows(
            self.tasks, task, obs, action, reward, terminated, source, f"episode {self._count}", self._clamp_rewards
        )
        self._shard.append(self._count, self._numbers[task], rows, bool(terminated), source)
        self._count += 1

    def close(self) -> None:
        """Assemble, check and publish the final file.

        Raises:
            LitPWMError: there is no episode, or a file of that name has appeared meanwhile.
        """
        self._closed = True
        self._shard.close()
        try:
            records = list(self._folder.records().values())
            if not records:
                raise LitPWMError(f"No episode was appended to {str(self.path)!r}; a store holds at least one.")
            finish(self._folder, self.tasks, self._action_repeat, records, {"verb": "EpisodeWriter"}, self._specs)
        finally:
            self._folder.close()

    def __enter__(self) -> EpisodeWriter:
        """The writer itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Publish the store, or after an exception leave the shards alone."""
        if kind is None:
            self.close()
            return
        self._closed = True
        self._shard.close()
        self._folder.close()


def store_settings(
    tasks: Mapping[str, tuple[int, int]], action_repeat: int, specs: Mapping[str, StoredSpec]
) -> dict[str, object]:
    """What the shards of a store must agree on."""
    return {
        "tasks": {name: list(dims) for name, dims in tasks.items()},
        "action_repeat": action_repeat,
        "specs": {name: dict(spec) for name, spec in specs.items()},
    }
