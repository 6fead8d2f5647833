"""A pool of worker processes that ends when it is told to, and names the worker that fails it."""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import signal
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from types import TracebackType
from typing import Any, Self

from lit_pwm.errors import LitPWMError
from lit_pwm.runtime.pool_worker import work_on_calls
from lit_pwm.runtime.stopping import shielded_workers

SILENCE = 120.0
"""Seconds without a sign of life after which a worker counts as stopped."""
_SLICE = 0.5


class WorkerEndedError(LitPWMError):
    """A worker process ended, or was stopped, amid its work."""


@dataclass(frozen=True, eq=False)
class Call:
    """One piece of work.

    Attributes:
        what: what it does, for errors, such as `"the policy of cup-catch"`.
        function: importable from a module.
        arguments: plain values.
        tells: give the function a keyword argument `tell`, whose messages the caller of `Pool.run` sees.
    """

    what: str
    function: Callable[..., Any]
    arguments: tuple[Any, ...] = ()
    tells: bool = False


@dataclass(frozen=True, eq=False)
class Ended:
    """A call that a worker has made.

    Attributes:
        call: the call.
        value: what it returned.
        error: what it raised, if it did.
    """

    call: Call
    value: Any = None
    error: BaseException | None = None


@dataclass
class _Worker:
    process: SpawnProcess
    connection: Connection
    call: Call | None = None  # that it works on
    silent: float = field(default=0.0)


class Pool:
    """Worker processes that take one call after the other; use it in a `with` block.

    An exception in the block, such as Ctrl-C, kills the workers at once: what they do must be safe against that.
    Workers are started when they are needed, die with this process even if it is killed, and are started by spawning,
    because a forked process may hang in a renderer or a thread pool.

    Args:
        processes: at most so many.
        start: called in each worker before its first call, with `arguments`.
        arguments: plain values.
        silence: seconds without a sign of life after which a worker counts as stopped.
    """

    def __init__(
        self,
        processes: int,
        start: Callable[..., object] | None = None,
        arguments: tuple[Any, ...] = (),
        silence: float = SILENCE,
    ) -> None:
        self._most, self._start, self._silence = processes, (start, arguments), silence
        self._workers: list[_Worker] = []

    def run(
        self, calls: Iterable[Call], told: Callable[[Any], object] = lambda message: None
    ) -> Generator[tuple[Call, Any]]:
        """Run calls side by side.

        Args:
            calls: in the order in which they are begun.
            told: called with each message of a call that tells.

        Yields:
            Each call with what it returned, as they end.

        Raises:
            WorkerEndedError: a worker was killed or stopped; the message names it and its call.
            Exception: what a call raised.
        """
        waiting, over = deque(calls), False
        try:
            while waiting or self.is_busy():
                while waiting and self.has_room():
                    self.begin(waiting.popleft())
                for ended in self.wait(told):
                    if ended.error is not None:
                        raise ended.error
                    yield ended.call, ended.value
            over = True
        finally:
            if not over:
                self.kill()

    def is_busy(self) -> bool:
        """Whether a call is being worked on."""
        return any(worker.call is not None for worker in self._workers)

    def has_room(self) -> bool:
        """Whether a call could be begun at once."""
        return len(self._workers) < self._most or any(worker.call is None for worker in self._workers)

    def begin(self, call: Call) -> None:
        """Hand a call to a worker that has none, which is started if need be; there must be room.

        Raises:
            WorkerEndedError: the worker is gone.
        """
        worker = next((worker for worker in self._workers if worker.call is None), None) or self._started()
        worker.call, worker.silent = call, 0.0
        try:
            worker.connection.send((call.function, call.arguments, call.tells))
        except OSError:
            self._ended(worker)

    def wait(self, told: Callable[[Any], object] = lambda message: None) -> Generator[Ended]:
        """Wait for a moment, or until a worker says something.

        Args:
            told: as for `run`.

        Yields:
            The calls that have ended.

        Raises:
            WorkerEndedError: a worker was killed or stopped; the message names it and its call.
        """
        for worker in self._heard():
            kind, value = self._received(worker)
            if kind == "told":
                told(value)
            elif kind in ("returned", "raised"):
                call, worker.call = worker.call, None
                assert call is not None
                yield Ended(call, value) if kind == "returned" else Ended(call, error=value)
        self._refuse_silence()

    def _started(self) -> _Worker:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=work_on_calls, args=(theirs, *self._start))
        with shielded_workers():
            process.start()
            self._workers.append(_Worker(process, ours))
        theirs.close()
        return self._workers[-1]

    def _heard(self) -> list[_Worker]:
        """The workers at work that have said something, after waiting for one for a moment."""
        busy = {id(worker.connection): worker for worker in self._workers if worker.call is not None}
        began = time.monotonic()
        heard = multiprocessing.connection.wait([worker.connection for worker in busy.values()], _SLICE)
        # Time in which this process was stopped too (Ctrl-Z) does not count.
        passed = min(time.monotonic() - began, 2 * _SLICE)
        for worker in busy.values():
            worker.silent += passed
        return [busy[id(connection)] for connection in heard]

    def _received(self, worker: _Worker) -> tuple[str, Any]:
        worker.silent = 0.0
        try:
            return worker.connection.recv()
        except (EOFError, OSError):
            self._ended(worker)
            raise AssertionError from None

    def _ended(self, worker: _Worker) -> None:
        worker.process.join(2)
        raise WorkerEndedError(f"{_named(worker)} ended unexpectedly: {ending(worker.process.exitcode)}.")

    def _refuse_silence(self) -> None:
        for worker in self._workers:
            if worker.call is not None and worker.silent > self._silence:
                raise WorkerEndedError(
                    f"{_named(worker)} has given no sign of life for {worker.silent:.0f} seconds: it was "
                    f"stopped, or the machine has no time for it."
                )

    def kill(self) -> None:
        """Kill all workers."""
        for worker in self._workers:
            worker.process.kill()
        for worker in self._workers:
            worker.process.join(1)
            worker.connection.close()
        self._workers = []

    def close(self) -> None:
        """Let the workers, which are idle, end; those that do not within two seconds are killed."""
        for worker in self._workers:
            worker.connection.close()
        deadline = time.monotonic() + 2
        for worker in self._workers:
            worker.process.join(max(0.0, deadline - time.monotonic()))
        self.kill()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.kill()


def ending(code: int | None) -> str:
    """How a process ended, in words, from its exit code."""
    if code is None:
        return "it closed its connection"
    if code >= 0:
        return f"it exited with {code}"
    name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
    return f"it was killed by {name}" + (", perhaps for lack of memory" if -code == signal.SIGKILL else "")


def _named(worker: _Worker) -> str:
    assert worker.call is not None
    return f"The worker process {worker.process.pid}, which worked on {worker.call.what},"
