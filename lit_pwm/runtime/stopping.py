"""How a command that trains nothing ends when a signal asks it to: at once, with its workers, whatever it was doing."""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import sys
from collections.abc import Generator
from multiprocessing import resource_tracker
from typing import NoReturn

from lit_pwm.errors import RunStopped
from lit_pwm.runtime import run_signals
from lit_pwm.runtime.run_signals import ENDING


@contextlib.contextmanager
def stopping() -> Generator[None]:
    """A block that a signal ends; what a library makes of being interrupted counts as that too.

    Raises:
        RunStopped: a signal came.
    """
    with run_signals.catching_signals():
        try:
            yield
        except Exception as error:
            asked = run_signals.asked()
            if asked is None:
                raise
            raise RunStopped(asked) from error


@contextlib.contextmanager
def shielded() -> Generator[None]:
    """Within the block, start processes: they are born deaf to what this one hears, until they say what they do then.

    Ctrl-C reaches all processes of a terminal, also one that is still importing, which would print a traceback. A
    rank of a run calls `run_signals.install`; for workers there is `shielded_workers`.

    Raises:
        RunStopped: a signal came meanwhile.
    """
    with run_signals.held():
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, run_signals.heard())
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)


@contextlib.contextmanager
def shielded_workers() -> Generator[None]:
    """As `shielded`, for multiprocessing's workers: what these do is for their parent to end.

    They call `lit_pwm.runtime.processes.become_worker`.

    Raises:
        RunStopped: a signal came meanwhile.
    """
    with run_signals.held():
        resource_tracker.ensure_running()  # before: where it has to be started, it lets signals in again
        with shielded():
            yield


def leave(code: int, *, tidy: bool = True) -> NoReturn:
    """End this process, a signal cutting short what Python does at its end.

    Args:
        code: what it exits with.
        tidy: let everything that is still open end in its own time, which takes seconds once torch is loaded; else only
            what has asked to be called at the end is called.
    """
    for number in ENDING:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, lambda number, frame: run_signals.end_now(128 + number))
    if not tidy:
        atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError, AttributeError):
                stream.flush()
        os._exit(code)
    sys.exit(code)
