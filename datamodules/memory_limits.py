"""The memory that a control group of Linux allows this process, page cache included (cgroup, version 1 and 2)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

_GROUPS = Path("/proc/self/cgroup")
_ROOT = Path("/sys/fs/cgroup")


def memory_limits() -> Iterator[int]:
    """Limits in bytes of this process's memory group and of those around it; none where there are none."""
    try:
        lines = _GROUPS.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(","):
            root, name = _ROOT / "memory", "memory.limit_in_bytes"
        elif not controllers:
            root, name = _ROOT, "memory.max"
        else:
            continue
        own = root / path.lstrip("/")
        for folder in (own, *own.parents):
            if not folder.is_relative_to(root):
                break
            try:
                yield int((folder / name).read_text())
            except (OSError, ValueError):  # not there in a container, or "max"
                continue
