"""Whether a run is in progress, by what it leaves in its folder."""

from __future__ import annotations

import fcntl
import json
import os
import socket
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

RECORD = "run.json"
YOUNG_SECONDS = 600.0
"""A run whose last sign of life is older is not in progress."""


def in_progress(run: Path, root: Path, now: float) -> str | None:
    """Why a run counts as in progress; None if it does not.

    By the heartbeat in the `run.json` nearest to it, where there is one; else by a lock file in it, a lock that another
    process holds on a folder above it, or a file of it that is younger than ten minutes.

    Args:
        run: its folder.
        root: the folder that is looked through, `run` or above it.
        now: seconds since the epoch.
    """
    above = [folder for folder in (run, *run.parents) if folder == root or root in folder.parents]
    for folder in above:
        if (alive := _by_heartbeat(folder / RECORD, now)) is not None:
            return f"its heartbeat in {folder / RECORD} is young" if alive else None
    for file in sorted(run.glob("*.lock")) + sorted(run.glob(".*lock")):
        if _counts(file):
            return f"its lock {file.name}"
    for folder in above[1:]:
        if is_held(folder / ".lock"):
            return f"a process works in {folder}"
    youngest = max(_times(run), default=0.0)
    return "a file of it is younger than 10 minutes" if now - youngest < YOUNG_SECONDS else None


def is_held(lock: Path) -> bool:
    """Whether a process of this machine holds a lock file."""
    try:
        with open(os.open(lock, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK), "rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def _counts(lock: Path) -> bool:
    """One that is there counts, unless it is of this machine and nobody holds it."""
    if is_held(lock):
        return True
    try:
        words = lock.read_text(encoding="utf-8").split() if lock.is_file() else []
    except (OSError, ValueError):
        words = []
    return words[:1] != [socket.gethostname()]


def _by_heartbeat(file: Path, now: float) -> bool | None:
    """Whether a record says that its run is alive; None where it does not say."""
    try:
        record: Any = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(record, dict):
        return None
    if record.get("end") is not None:
        return False
    beat = _seconds(record.get("heartbeat"))
    return None if beat is None else now - beat < YOUNG_SECONDS


def _seconds(value: object) -> float | None:
    """Seconds since the epoch, of a number or of a date and time in ISO 8601, UTC where it names no zone."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, str):
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            return None
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    return None


def _times(folder: Path) -> Iterator[float]:
    for where, _, names in os.walk(folder):
        for name in names:
            try:
                yield os.lstat(os.path.join(where, name)).st_mtime
            except OSError:  # it has just gone
                continue
