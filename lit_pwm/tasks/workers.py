"""Environments in worker processes that are named when they fail, and that end when they are told to."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable, Iterable, Sequence
from multiprocessing import forkserver, util
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

import gymnasium
from gymnasium.vector import AsyncVectorEnv, AutoresetMode
from gymnasium.vector.async_vector_env import _async_worker

from lit_pwm.errors import LitPWMError
from lit_pwm.runtime.pool import ending
from lit_pwm.runtime.processes import become_worker, keep_sockets_short
from lit_pwm.runtime.stopping import shielded_workers

TIMEOUT = 120.0
"""Seconds in which an environment's worker has to answer."""
_SLICE = 1.0


class WorkerFailedError(LitPWMError):
    """A process that ran an environment ended, or did not answer in time."""


class WorkerVectorEnv(AsyncVectorEnv):
    """gymnasium's vector of environments in workers, which waits for an answer no longer than it is told to.

    Args:
        makers: make the environments, one for each worker.
        task: their task, for errors.
        timeout: seconds in which a worker has to answer.

    Raises:
        WorkerFailedError: now, or in any later call: a worker died, or did not answer; the message names it.
    """

    def __init__(
        self, makers: Sequence[Callable[[], gymnasium.Env[Any, Any]]], task: str, timeout: float = TIMEOUT
    ) -> None:
        self._task, self._timeout = task, timeout
        method = "spawn"
        if "forkserver" in multiprocessing.get_all_start_methods():
            # The workers' imports are done once, in the server. It loads no simulator: that would open an EGL display
            # there. Not fork: a forked child of a process that has rendered, or that runs threads, can hang.
            method = "forkserver"
            multiprocessing.set_forkserver_preload(["lit_pwm.tasks.workers", "lit_pwm.tasks.environment"])
            keep_sockets_short()
        with shielded_workers():
            if method == "forkserver":
                forkserver.ensure_running()
            super().__init__(makers, context=method, worker=_work, autoreset_mode=AutoresetMode.NEXT_STEP)

    def _check_spaces(self) -> None:
        # gymnasium's constructor ends with this. From here on every answer is waited for with patience that ends.
        util.Finalize(self, _kill, (list(self.processes),), exitpriority=10)
        self.parent_pipes: list[Any] = [
            _Answers(pipe, process, f"{number} of {self._task!r}", self._timeout)
            for number, (pipe, process) in enumerate(zip(self.parent_pipes, self.processes, strict=True))
        ]
        try:
            super()._check_spaces()
        except BaseException:
            self.close()
            raise

    def _raise_if_errors(self, successes: Iterable[bool]) -> None:
        # gymnasium prints each worker's traceback before it raises the first one's error.
        if not all(successes):
            _, _, error, _ = self.error_queue.get()
            raise error

    def close_extras(self, timeout: float | None = None, terminate: bool = True) -> None:
        """Kill the workers, also those that hang, were killed, or are amid a step; gymnasium would wait for them."""
        _kill(self.processes)
        for pipe in self.parent_pipes:
            if pipe is not None:
                pipe.close()


class _Answers:
    """The connection to a worker, whose `recv` waits no longer than a time; all else is the connection's own."""

    def __init__(self, connection: Connection, process: BaseProcess, name: str, timeout: float) -> None:
        self._connection, self._process, self._name, self._timeout = connection, process, name, timeout

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def send(self, message: object) -> None:
        try:
            self._connection.send(message)
        except OSError as error:
            raise self._gone() from error

    def recv(self) -> object:
        try:
            waited = 0.0
            while not self._connection.poll(_SLICE):
                waited += _SLICE  # and not by a clock, which goes on while this process is stopped too (Ctrl-Z)
                if waited >= self._timeout:
                    raise WorkerFailedError(
                        f"The process {self._process.pid}, which runs environment {self._name}, has not answered for "
                        f"{waited:.0f} seconds: it was stopped, or hangs. Run the command again, with a longer "
                        f"timeout if the machine is very busy."
                    )
            return self._connection.recv()
        except (EOFError, OSError) as error:
            raise self._gone() from error

    def _gone(self) -> WorkerFailedError:
        self._process.join(2)
        return WorkerFailedError(
            f"The process {self._process.pid}, which ran environment {self._name}, ended unexpectedly: "
            f"{ending(self._process.exitcode)}. Evaluate fewer episodes, or with other work stopped."
        )


def _kill(processes: Sequence[BaseProcess]) -> None:
    for process in processes:
        if process.is_alive():
            process.kill()
    deadline = time.monotonic() + 2
    for process in processes:
        process.join(max(0.0, deadline - time.monotonic()))


def _work(*arguments: Any) -> None:
    """gymnasium's worker, without a word when its maker is gone."""
    become_worker()
    try:
        _async_worker(*arguments)
    except (EOFError, OSError):
        os._exit(1)
