"""How a command ends when it is asked to: by Ctrl-C, by SIGTERM, or by a terminal that closes (SIGHUP)."""

from __future__ import annotations

import atexit
import contextlib
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Generator
from types import FrameType
from typing import NoReturn

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""The signals that ask a command to end."""


class Stopped(KeyboardInterrupt):
    """A signal asked the command to end.

    Attributes:
        signal: which.
    """

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.signal = signal.Signals(number)

    @property
    def exit_code(self) -> int:
        """What the command exits with: 130 after Ctrl-C, 143 after SIGTERM, 129 after SIGHUP."""
        return 128 + self.signal


_asked: list[int] = []  # signals that came since `stopping` was entered
_held: list[None] = []  # one entry for each `held` block that is running
_at_once: list[Callable[[], object]] = []  # what a second signal still has to do


@contextlib.contextmanager
def stopping() -> Generator[None]:
    """Let the first of `ENDING` raise `Stopped` in the main thread, and a second one end this process at once.

    Whatever else is raised after a signal, such as what a library makes of being interrupted, becomes `Stopped` too.
    A signal that this process was started to ignore (`nohup`) stays ignored.

    Raises:
        Stopped: a signal came.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may set handlers
        return
    _asked.clear()
    before = {number: signal.getsignal(number) for number in ENDING}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, _ask)
    try:
        yield
    except Stopped:
        raise
    except BaseException as error:
        if _asked:
            raise Stopped(_asked[0]) from error
        raise
    else:
        if _asked:
            raise Stopped(_asked[0])
    finally:
        if not _asked:  # else the process is about to end, and a second signal still ends it at once
            for number, handler in before.items():
                signal.signal(number, handler)


@contextlib.contextmanager
def held() -> Generator[None]:
    """Let the first signal wait until the end of the block, for what must not be left half done.

    Raises:
        Stopped: one came meanwhile.
    """
    _held.append(None)
    try:
        yield
    finally:
        _held.pop()
    if _asked and not _held:
        raise Stopped(_asked[0])


@contextlib.contextmanager
def at_once(end: Callable[[], object]) -> Generator[None]:
    """Within the block, have a second signal call `end` before it ends this process; children are killed anyway."""
    _at_once.append(end)
    try:
        yield
    finally:
        _at_once.remove(end)


def _ask(number: int, frame: FrameType | None) -> None:
    if _asked:
        _end(number)
    _asked.append(number)
    if not _held:
        raise Stopped(number)


def _end(number: int) -> None:
    for end in reversed(_at_once):
        with contextlib.suppress(Exception):
            end()
    for child in multiprocessing.active_children():
        with contextlib.suppress(Exception):
            child.kill()
    with contextlib.suppress(OSError):
        show_cursor = "\x1b[?25h" if sys.stderr is not None and sys.stderr.isatty() else ""
        os.write(2, f"{show_cursor}\nInterrupted.\n".encode())
    os._exit(128 + number)


@contextlib.contextmanager
def shielded() -> Generator[None]:
    """Within the block, start worker processes: they are born deaf to `ENDING`, until they say what they do about it.

    Ctrl-C reaches all processes of a terminal, also one that is still importing, which would print a traceback. A
    worker calls `lit_pwm.processes.become_worker`; what it does is for its parent to end.
    """
    with held():
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def leave(code: int, *, tidy: bool = True) -> NoReturn:
    """End this process, a signal cutting short what Python does at its end.

    Args:
        code: what it exits with.
        tidy: let everything that is still open end in its own time, which takes seconds once torch is loaded; else only
            what has asked to be called at the end is called.
    """
    for number in ENDING:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, lambda number, frame: _end(number))
    if not tidy:
        atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError, AttributeError):
                stream.flush()
        os._exit(code)
    sys.exit(code)
