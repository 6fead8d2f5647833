"""Collecting episodes in the real environments into a store."""

from __future__ import annotations

import itertools
import logging
import os
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from datamodules.assembling import finish
from datamodules.behaviours import behaviour_identity, check_behaviour, trained_tasks
from datamodules.incoming import checked_specs
from datamodules.policy_tasks import make_policys_tasks_known
from datamodules.rolling import EPISODE_KEYS, Collector, Diverged, Rolled, Work
from datamodules.shard_folder import ShardFolder
from datamodules.store import EpisodeStore
from datamodules.working_folder import refuse_existing
from datamodules.writer import store_settings
from lit_pwm.errors import LitPWMError
from lit_pwm.options import Count, Seed, Workers, checked
from lit_pwm.paths import absolute
from lit_pwm.runtime.consoles import ProgressConsole
from lit_pwm.runtime.pool import Call, Pool, WorkerEndedError
from lit_pwm.runtime.processes import usable_cores
from lit_pwm.tasks import TaskSpec, task_spec
from lit_pwm.tasks.handing_over import Handover, hand_over

_LOG = logging.getLogger(__name__)
_GROUP = 10
"""Episodes handed to a worker at once: few, so that all workers finish at about the same time."""


def collect(
    tasks: Sequence[str],
    episodes: int,
    out: str | os.PathLike[str],
    behaviour: str = "noise",
    workers: int | None = None,
    seed: int = 0,
    progress: bool = True,
    clamp_rewards: bool = False,
) -> EpisodeStore:
    """Collect episodes of tasks into a new store.

    Episode i of a task depends on the seed, the task and i alone, so that the store is the same for any number of
    workers. Killed at any moment it loses the episodes in flight, and goes on where it was when it is called again with
    the same arguments; the number of episodes may then be another. With several workers the calling script must be
    guarded by `if __name__ == "__main__":`, because worker processes import it.

    An episode whose simulation diverges is left out, with a notice: the same seed would diverge again, and the rows
    before that are as wrong as they are large.

    Args:
        tasks: names of tasks, or `gym:ID` for environments of gymnasium.
        episodes: episodes of each task.
        out: the store's file, which must not exist yet.
        behaviour: `random` for uniform actions, `noise` for a mix of Ornstein-Uhlenbeck, pink, held bang-bang and
            square-wave noise, or the path of a policy's checkpoint, to which noise is added.
        workers: processes; as many as there are processor cores if not given. 1 collects in the calling process.
        seed: of starts and noise.
        progress: show a progress bar on stderr.
        clamp_rewards: clamp rewards beyond the range of a model's bins, ±22,025.5, instead of refusing them; the store
            records how many.

    Returns:
        The finished store.

    Raises:
        LitPWMError: an argument is not one of those above, the file cannot be written, or every episode diverged.
    """
    specs = check_arguments(tasks, episodes, out, behaviour, workers, seed)
    _notice_untrained(behaviour, [spec.name for spec in specs])
    final = absolute(out)
    dims = {spec.name: (spec.obs_dim, spec.action_dim) for spec in specs}
    action_repeat = specs[0].action_repeat
    stored = checked_specs(dims, None, specs)
    settings = store_settings(dims, action_repeat, stored) | {"behaviour": behaviour_identity(behaviour), "seed": seed}
    with ShardFolder(final, settings) as folder:
        wanted = [task * EPISODE_KEYS + number for task in range(len(specs)) for number in range(episodes)]
        there = folder.records()
        missing = [key for key in wanted if key not in there]
        work = _pieces(specs, missing, clamp_rewards)
        processes = min(workers or usable_cores(), max(len(work), 1))
        with _bar(final, len(wanted), len(wanted) - len(missing), progress) as advance:
            diverged: list[Diverged] = []
            for rolled in _run(work, processes, hand_over(specs), (behaviour, seed, folder.path, tuple(dims))):
                diverged += rolled.diverged
                advance(rolled.count)
        there = folder.records()
        _notice(diverged, len(wanted))
        left_out = {[*dims].index(one.task) * EPISODE_KEYS + one.number for one in diverged}
        made = {"verb": "collect", "episodes": episodes, "left_out": sorted(left_out), **settings}
        finish(folder, dims, action_repeat, [there[key] for key in wanted if key not in left_out], made, stored)
    return EpisodeStore(final)


def _notice_untrained(behaviour: str, tasks: Sequence[str]) -> None:
    """Say which tasks a policy is to act in that it was not trained for."""
    trained = trained_tasks(behaviour, tasks)
    if trained and (untrained := [task for task in tasks if task not in trained]):
        _LOG.warning("The policy was trained for %s, and not for %s.", ", ".join(trained), ", ".join(untrained))


def _notice(diverged: Sequence[Diverged], wanted: int) -> None:
    """Say which episodes are left out.

    Raises:
        LitPWMError: all are.
    """
    if not diverged:
        return
    first = min(diverged, key=lambda one: (one.task, one.number))
    said = (
        f"The simulation diverged in {len(diverged)} of {wanted} episodes, first in episode {first.number} of "
        f"{first.task!r} (environment seed {first.seed}) at step {first.step}: {' '.join(first.reason.split())}"
    )
    if len(diverged) == wanted:
        raise LitPWMError(f"{said.rstrip('.')}. No episode is left to store. Mend the task, or give another --seed.")
    by_task = Counter(one.task for one in diverged)
    counts = ", ".join(f"{number} of {task!r}" for task, number in sorted(by_task.items()))
    _LOG.warning("%s. They are left out of the store: %s.", said.rstrip("."), counts)


def _pieces(specs: Sequence[TaskSpec], keys: Sequence[int], clamp_rewards: bool) -> list[Work]:
    """The episodes of some keys, in groups of neighbours of one task."""
    pieces = []
    for task, spec in enumerate(specs):
        numbers = [key % EPISODE_KEYS for key in keys if key // EPISODE_KEYS == task]
        for _, group in itertools.groupby(numbers, lambda number: number // _GROUP):
            pieces.append(Work(spec, task, tuple(group), clamp_rewards))
    return pieces


@checked
def check_arguments(
    tasks: Sequence[str],
    episodes: Count,
    out: str | os.PathLike[str],
    behaviour: str,
    workers: Workers | None,
    seed: Seed,
) -> list[TaskSpec]:
    """The specs of the tasks, having made sure that `collect` accepts its arguments.

    Raises:
        LitPWMError: it does not.
    """
    if isinstance(tasks, str) or not tasks:
        raise LitPWMError(f"The tasks to collect are {tasks!r}; give a list of at least one name.")
    check_behaviour(behaviour)
    make_policys_tasks_known(behaviour, tasks)
    specs = [task_spec(name) for name in tasks]
    for spec in specs:
        if not spec.runnable:
            raise LitPWMError(
                f"The task {spec.name!r} belongs to Meta-World, whose environments are not supported yet, so that it "
                f"cannot be collected. Choose tasks of the set 'mt30'."
            )
    if len({spec.name for spec in specs}) < len(specs):
        raise LitPWMError(f"The tasks to collect, {', '.join(tasks)}, name one twice. Name each once.")
    refuse_existing(absolute(out))
    return specs


# -- processes --------------------------------------------------------------------------------------------------------
def _run(
    work: Sequence[Work], processes: int, handover: Handover, how: tuple[str, int, Path, Sequence[str]]
) -> Iterator[Rolled]:
    """Do the work here or in worker processes, by a `Collector` of `how`, saying what became of each piece."""
    if not work:
        return
    if processes == 1:
        collector = Collector(*how)
        try:
            yield from map(collector.collect, work)
        finally:
            collector.close()
        return
    calls = [Call(_named(piece), _collect_in_worker, (piece,)) for piece in work]
    try:
        # Killed at any moment, a worker leaves its finished episodes whole.
        with Pool(processes, _start_worker, (handover, *how)) as pool:
            for _, rolled in pool.run(calls):
                yield rolled
    except WorkerEndedError as error:
        raise LitPWMError(
            f"{error} What was finished waits in {str(how[2])!r}: run the command again to go on. A script that "
            f'collects with several workers must be guarded by `if __name__ == "__main__":`; workers=1 needs no guard.'
        ) from error


def _named(piece: Work) -> str:
    return f"episodes {piece.numbers[0]} to {piece.numbers[-1]} of {piece.spec.name!r}"


_worker: dict[str, Collector] = {}


def _start_worker(handover: Handover, behaviour: str, seed: int, folder: Path, tasks: Sequence[str]) -> None:
    handover.take()
    _worker["collector"] = Collector(behaviour, seed, folder, tasks)


def _collect_in_worker(work: Work) -> Rolled:
    return _worker["collector"].collect(work)


# -- progress ---------------------------------------------------------------------------------------------------------
class _Speed(ProgressColumn):
    """Episodes per second."""

    def render(self, task: Task) -> Text:
        """The measured speed."""
        return Text("" if task.speed is None else f"{task.speed:.1f} episodes/s")


@contextmanager
def _bar(final: Path, total: int, done: int, shown: bool) -> Generator[Callable[[int], None], None, None]:
    """A progress bar; gives the function that advances it."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), _Speed(), TimeRemainingColumn())
    with Progress(*columns, console=ProgressConsole(stderr=True), disable=not shown, speed_estimate_period=20) as bar:
        bar_id = bar.add_task(f"Collecting {final.name}", total=total, completed=done)
        yield lambda count: bar.advance(bar_id, count)
