"""Consoles for people who may have gone: a reader that closed its end, a full disk behind a redirection."""

from __future__ import annotations

import os
from typing import Any

from rich.console import Console


class ResultConsole(Console):
    """Prints a result, and raises OSError where it cannot, which rich would turn into exit code 1 without a word."""

    def on_broken_pipe(self) -> None:
        """Raise BrokenPipeError again; the command line exits with 141."""
        raise BrokenPipeError


class ProgressConsole(Console):
    """Says how far work is, and goes silent where nobody listens any more, so that the work goes on."""

    def on_broken_pipe(self) -> None:
        """Be silent from now on."""
        self.quiet = True
        self.file = open(os.devnull, "w")  # noqa: SIM115 - for as long as the console

    def print(self, *objects: Any, **options: Any) -> None:
        """Print as rich does, or not at all."""
        try:
            super().print(*objects, **options)
        except OSError:
            self.on_broken_pipe()
