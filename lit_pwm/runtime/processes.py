"""Processes as this project runs them: workers that do not outlive their parent, memory that is kept for reuse."""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import multiprocessing.connection
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Generator
from multiprocessing import process, util

from lit_pwm.runtime import run_signals
from lit_pwm.runtime.run_signals import ENDING


def become_worker() -> None:
    """Make this process a worker: deaf to Ctrl-C, SIGTERM and SIGHUP, which its parent acts on, and gone with it.

    Batch systems, terminals and Ctrl-C signal all processes alike. The parent decides what to keep and kills its
    workers; had one died of the signal by itself, that would look like an accident.
    """
    if threading.current_thread() is threading.main_thread():
        for number in ENDING:
            signal.signal(number, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, run_signals.heard())
    run_signals.forget_launcher()
    end_with_parent()


def end_with_parent() -> None:
    """From now on end this worker process when its parent has been killed, whatever it is doing."""
    threading.Thread(target=_wait_for_parent, daemon=True).start()


def _wait_for_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    multiprocessing.connection.wait([parent.sentinel])
    os._exit(1)


def usable_cores() -> int:
    """Cores that this process may run on."""
    if sys.platform.startswith("linux"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


LIFELINE = "LIT_PWM_LIFELINE"
"""Names a file descriptor whose other end is closed when the command that started this one has ended."""
_LAST_SECONDS = 15.0


@contextlib.contextmanager
def lifeline() -> Generator[int]:
    """A file descriptor for `LIFELINE` in the environment of commands that shall not outlive this process."""
    reading, writing = os.pipe()
    try:
        yield reading
    finally:
        os.close(reading)
        os.close(writing)


def follow_lifeline() -> None:
    """End this command, as SIGTERM does, when the one that started it has been killed; nothing without a `LIFELINE`."""
    named = os.environ.pop(LIFELINE, "")
    if named.isdigit():
        threading.Thread(target=_wait_for_end, args=(int(named),), daemon=True).start()


def _wait_for_end(lifeline: int) -> None:
    with contextlib.suppress(OSError):
        while os.read(lifeline, 1):
            pass
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(_LAST_SECONDS)
        os._exit(128 + signal.SIGTERM)


_LONGEST_FOLDER = 70
"""Bytes of a folder's name in which sockets can be made: their paths have 107 at most, and names of about 30."""


def keep_sockets_short() -> None:
    """Let the sockets of worker processes be made in a short folder where TMPDIR is longer than a socket's path may be.

    Everything else that is temporary stays in TMPDIR.
    """
    config: dict[str, object] = vars(process.current_process())["_config"]
    if len(os.fsencode(tempfile.gettempdir())) <= _LONGEST_FOLDER or config.get("tempdir") is not None:
        return
    for place in ("/tmp", "/var/tmp", "/dev/shm"):
        with contextlib.suppress(OSError):
            config["tempdir"] = tempfile.mkdtemp(prefix="pymp-", dir=place)
            util.Finalize(None, shutil.rmtree, (config["tempdir"], True), exitpriority=-100)
            return


_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h


def keep_freed_memory() -> None:
    """Let this process keep memory that it frees, for its next tensors; a tenth of the time of small training on a CPU.

    By default glibc gives each tensor above 128 KiB back to the system, and the next one costs its pages anew. Does
    nothing with other C libraries.
    """
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL("libc.so.6").mallopt
        mallopt(_M_MMAP_THRESHOLD, 1 << 25)  # the largest that glibc takes
        mallopt(_M_TRIM_THRESHOLD, 1 << 28)


def release_freed_memory() -> None:
    """Give memory that was kept back to the system, before other work than training; glibc only."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def open_standard_streams() -> None:
    """Give a process that was started without stdin, stdout or stderr (`>&-`) those that lead nowhere.

    Python has None in place of such a stream, which whoever prints fails at; and the next file that is opened would be
    given its number, so that what goes to number 2 would be written into a store or a checkpoint.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            nowhere = os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, which is this one
            os.set_inheritable(nowhere, True)  # for workers and ranks
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, "r" if number == 0 else "w", closefd=False))  # noqa: SIM115
