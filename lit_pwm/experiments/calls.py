"""Work of experiments that is calls of functions, run by the engine in worker processes or in this one."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from lit_pwm.experiments.engine import Engine, Outcome, Watcher
from lit_pwm.runtime.pool import Call, Ended, Pool


@dataclass(frozen=True)
class Work:
    """A call, and what it needs and leaves.

    Attributes:
        call: the call, made in a worker process.
        needs: keys of the work that comes before.
        leaves: a file that is there once the work is finished; without one, it is done each time.
        for_others: it is only done for work that needs it: where all of that is finished, this counts as finished.
    """

    call: Call
    needs: tuple[str, ...] = ()
    leaves: Path | None = None
    for_others: bool = False


class Workers(Protocol):
    """What makes calls: a `Pool`, or `Here`."""

    def has_room(self) -> bool:
        """Whether a call could be begun at once."""
        ...

    def begin(self, call: Call) -> None:
        """Begin a call."""
        ...

    def wait(self, told: Callable[[object], object]) -> Generator[Ended]:
        """The calls that have ended, after waiting for a moment."""
        ...

    def kill(self) -> None:
        """End all."""
        ...


class Here:
    """Makes calls in this process, one after the other; none of them may tell anything."""

    def __init__(self) -> None:
        self._call: Call | None = None

    def has_room(self) -> bool:
        """Whether no call has been begun."""
        return self._call is None

    def begin(self, call: Call) -> None:
        """Begin a call, which is made by `wait`."""
        self._call = call

    def wait(self, told: Callable[[object], object] = lambda message: None) -> Generator[Ended]:
        """Make the call."""
        call, self._call = self._call, None
        if call is None:
            return
        try:
            ended = Ended(call, call.function(*call.arguments))
        except Exception as error:
            ended = Ended(call, error=error)
        yield ended

    def kill(self) -> None:
        """Nothing is left to end."""


class Calls:
    """Makes the calls of work, each once what it needs is finished.

    Args:
        work: by its keys.
        workers: where.
        told: called with each message of a call that tells.
        raises: let an error of a call end everything; else it is kept, and stops only what needs the call.

    Attributes:
        ends: key → how its call ended.
    """

    def __init__(
        self,
        work: Mapping[str, Work],
        workers: Workers,
        told: Callable[[Any], object] = lambda message: None,
        raises: bool = True,
    ) -> None:
        self.work, self.workers, self.told, self.raises = work, workers, told, raises
        self.ends: dict[str, Ended] = {}
        self._key_of = {id(one.call): key for key, one in work.items()}
        self._needed_by = {key: [other for other, one in work.items() if key in one.needs] for key in work}

    def run(self, watcher: Watcher | None = None) -> Outcome:
        """Make the calls that have not left their files.

        Raises:
            WorkerEndedError: a worker was killed or stopped.
            Exception: what a call raised, if these `raise`.
        """
        engine = Engine({key: work.needs for key, work in self.work.items()}, self, watcher)
        engine.look()
        try:
            return engine.run()
        except BaseException:
            self.workers.kill()
            raise

    # -- what the engine asks -----------------------------------------------------------------------------------------
    def is_finished(self, key: str) -> bool:
        """Whether what the call leaves is there, or all that it is for."""
        work, others = self.work[key], self._needed_by[key]
        there = work.leaves is not None and work.leaves.exists()
        return there or (work.for_others and all(self.is_finished(other) for other in others))

    def has_room(self) -> bool:
        """Whether a worker is free."""
        return self.workers.has_room()

    def start(self, key: str) -> bool:
        """Begin the call."""
        self.workers.begin(self.work[key].call)
        return True

    def ended(self) -> Iterable[tuple[str, bool]]:
        """The calls that have ended, as they do."""
        for end in self.workers.wait(self.told):
            key = self._key_of[id(end.call)]
            self.ends[key] = end
            if end.error is not None and self.raises:
                raise end.error
            yield key, end.error is None


class _Lines(Watcher):
    """A line for all that was finished before and for each piece of work that ends, with the time that remains."""

    def __init__(self, calls: Mapping[str, Ended], total: int) -> None:
        self._ends, self._left, self._done, self._since = calls, total, 0, time.monotonic()

    def skipped(self, key: str) -> None:
        self._left -= 1

    def finished(self, key: str) -> None:
        said = self._ends[key].value
        self._say(f"{key}: {said}" if isinstance(said, str) else f"{key}: finished")

    def failed(self, key: str) -> None:
        error = self._ends[key].error
        self._say(f"{key} failed: {type(error).__name__}: {error}")

    def blocked(self, key: str) -> None:
        self._left -= 1
        print(f"{key}: blocked by a failure", flush=True)

    def _say(self, text: str) -> None:
        self._left, self._done = self._left - 1, self._done + 1
        minutes = (time.monotonic() - self._since) / self._done * self._left / 60
        print(f"{text}; {self._left} are left, about {minutes:.0f} minutes", flush=True)


def run_study(work: Mapping[str, Work], workers: int) -> Outcome:
    """Do what a study's work has not left yet, side by side, with a line for each; a failure stops what needs it.

    Args:
        work: by its keys; a call that returns text has it printed.
        workers: processes; with one, it is this process.
    """
    with contextlib.ExitStack() as stack:
        calls = Calls(work, Here() if workers == 1 else stack.enter_context(Pool(workers)), raises=False)
        outcome = calls.run(_Lines(calls.ends, len(work)))
    print(", ".join(f"{len(keys)} {what}" for what, keys in vars(outcome).items() if keys), flush=True)
    return outcome
