"""Processes as this project runs them: workers that do not outlive their parent, memory that is kept for reuse."""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import multiprocessing.connection
import os
import threading


def end_with_parent() -> None:
    """From now on end this worker process when its parent has been killed.

    A pool alone would leave it waiting for work for ever, and a Trainer in it catches SIGTERM.
    """
    threading.Thread(target=_wait_for_parent, daemon=True).start()


def _wait_for_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    multiprocessing.connection.wait([parent.sentinel])
    os._exit(1)


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
