"""A control group of Linux that limits the memory of a process, page cache included; for benchmarks run by root."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Generator
from pathlib import Path

_V1 = Path("/sys/fs/cgroup/memory")


@contextlib.contextmanager
def memory_group(limit: int) -> Generator[Path | None, None, None]:
    """A new group within this process's own, of version 1 or 2; None where none may be made.

    A process joins by writing its number to the group's `cgroup.procs`.
    """
    name = f"lit-pwm-benchmark-{os.getpid()}"
    lines = dict(line.split(":", 2)[1:] for line in Path("/proc/self/cgroup").read_text().splitlines())
    first = "memory" in lines
    parent = (_V1 if first else Path("/sys/fs/cgroup")) / lines.get("memory", lines.get("", "/")).lstrip("/")
    group = parent / name
    try:
        group.mkdir()
        (group / ("memory.limit_in_bytes" if first else "memory.max")).write_text(str(limit))
    except OSError:
        with contextlib.suppress(OSError):
            group.rmdir()
        yield None
        return
    try:
        yield group
    finally:
        group.rmdir()
