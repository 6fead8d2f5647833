"""A `lit-pwm` that a test of faults has started (tests/faults/conftest.py)."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

PATIENCE = 120.0
"""Seconds that a process may take to start, on a busy machine."""


@dataclass
class Running:
    """A started `lit-pwm`.

    Attributes:
        process: it, the leader of a session of its own.
        folder: where its output goes, outside of where it works.
        cwd: where it works; only it and what it starts name files there.
    """

    process: subprocess.Popen
    folder: Path
    cwd: Path
    asked: float = field(default=0.0)

    def wait_for(self, path: Path) -> str:
        """What a file holds, once it is there."""
        end = time.monotonic() + PATIENCE
        while not path.exists():
            assert self.process.poll() is None, f"ended with {self.process.returncode}: {self.stderr[-2000:]}"
            assert time.monotonic() < end, f"never came to {path.name}: {self.stderr[-2000:]}"
            time.sleep(0.02)
        return path.read_text()

    def signal(self, number: int, group: bool = False) -> None:
        """Send a signal to it, or to all its processes as a terminal does."""
        self.asked = time.monotonic()
        (os.killpg if group else os.kill)(self.process.pid, number)

    def finish(self, within: float = PATIENCE) -> int:
        """Its exit code; fails if it takes longer, or if processes of it are left."""
        try:
            code = self.process.wait(within)
        except subprocess.TimeoutExpired:
            pytest.fail(f"still runs {within:g} s later: {self.stderr[-2000:]}")
        end = time.monotonic() + 3
        while (left := self.processes()) and time.monotonic() < end:
            time.sleep(0.05)
        assert not left, f"processes left: {left}"
        return code

    def processes(self) -> list[str]:
        """What runs in its session, and other commands that name the folder where it works."""
        found, here = [], os.fsencode(self.cwd)
        for status in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                name, rest = status.read_text().rsplit(")", 1)
                state, _, _, session = rest.split()[:4]
                ours = int(session) == self.process.pid or here in status.with_name("cmdline").read_bytes()
                if ours and state != "Z":
                    found.append(name)
        return found

    @property
    def stdout(self) -> str:
        """All that it printed."""
        return (self.folder / "stdout").read_text(errors="replace")

    @property
    def stderr(self) -> str:
        """All errors that it printed."""
        return (self.folder / "stderr").read_text(errors="replace")
