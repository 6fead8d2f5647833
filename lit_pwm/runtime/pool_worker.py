"""What a worker process of a pool does: calls, one after the other, with signs of life between."""

from __future__ import annotations

import contextlib
import pickle
import threading
import time
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from lit_pwm.runtime.processes import become_worker

BEAT = 5.0
"""Seconds between the signs of life of a worker."""


def work_on_calls(connection: Connection, start: Callable[..., object] | None, arguments: tuple[Any, ...]) -> None:
    """Make the calls that come through a connection, one after the other, until it is closed.

    Each is a function, its arguments and whether it tells. What goes back are pairs: `told` with a message, `returned`
    with a value, `raised` with an exception, and `alive` every few seconds.

    Args:
        connection: to the pool.
        start: called before the first call.
        arguments: its.
    """
    become_worker()
    lock = threading.Lock()

    def send(kind: str, value: object = None) -> None:
        with lock, contextlib.suppress(OSError):  # a parent that is gone needs no answer
            connection.send((kind, value))

    def beat() -> None:
        while True:
            time.sleep(BEAT)
            send("alive")

    threading.Thread(target=beat, daemon=True).start()
    started = False
    with contextlib.suppress(EOFError, OSError):
        while True:
            function, given, tells = connection.recv()
            try:
                if start is not None and not started:
                    start(*arguments)
                started = True
                options = {"tell": lambda *message: send("told", message)} if tells else {}
                send("returned", function(*given, **options))
            except BaseException as error:
                send("raised", _portable(error))


def _portable(error: BaseException) -> BaseException:
    """The exception as another process can raise it, with the traceback of this one as a note."""
    error.add_note(f"In a worker process:\n{traceback.format_exc()}")
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(traceback.format_exc())
    return error
