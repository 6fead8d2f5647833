"""Consoles for people who may have gone: a reader that closed its end, a full disk behind a redirection."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import IO, Any, cast

from rich.console import Console


class ResultConsole(Console):
    """Prints a result, and raises OSError where it cannot, which rich would turn into exit code 1 without a word."""

    def on_broken_pipe(self) -> None:
        """Raise BrokenPipeError again; the command line exits with 141."""
        raise BrokenPipeError


class ProgressConsole(Console):
    """Says how far work is, and goes silent where nobody listens any more, so that the work goes on.

    Args:
        stderr: say it there instead of on stdout.
        options: of rich's Console.
    """

    def __init__(self, stderr: bool = False, **options: Any) -> None:
        super().__init__(file=cast("IO[str]", _Lasting(sys.stderr if stderr else sys.stdout)), **options)


class _Lasting:
    """A stream that swallows what can no longer be written; all else is the stream's own."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except OSError:
            self._give_up()
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError:
            self._give_up()

    def _give_up(self) -> None:
        # What the stream still holds would be an error again at the process's end.
        with contextlib.suppress(OSError, ValueError), open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), self._stream.fileno())
