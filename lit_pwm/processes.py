"""Worker processes that do not outlive the process they work for."""

from __future__ import annotations

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
