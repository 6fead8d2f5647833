"""Shards: the crash-safe, append-only files in which episodes wait until their store is complete.

A shard is a sequence of records, each a header, the source's name, and the rows of one episode in its task's true
widths. A record is handed to the operating system in one piece as soon as it is complete, so that a process killed at
any moment leaves every finished episode, and at most one torn record at a shard's end, which readers leave out. Shards
are never written to again: a process that continues opens a new one.
"""

from __future__ import annotations

import contextlib
import os
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lit_pwm.errors import LitPWMError

# Magic, CRC-32 of what follows, key, task index, actions T, observation and action width, terminated, clipped actions,
# clamped rewards, source's bytes.
_HEADER = struct.Struct("<4sIqiiiiBqqH")
MAGIC = b"LPE2"
"""How every record starts; other formats of shards have other ones."""
_AFTER_CRC = 8


class Record(NamedTuple):
    """Where an episode lies in a shard, and what is known of it without reading its rows."""

    shard: Path
    position: int
    size: int
    key: int
    task: int
    length: int
    obs_dim: int
    action_dim: int
    terminated: bool
    clipped: int
    clamped: int
    source: str


@dataclass(frozen=True, eq=False)
class Rows:
    """The arrays of an episode, all float32.

    Attributes:
        obs: [T+1, O].
        action: [T, A].
        reward: [T].
        clipped: actions that were beyond ±1 by rounding, and were clipped.
        clamped: rewards that were beyond the range of a model's bins, and were clamped.
    """

    obs: np.ndarray
    action: np.ndarray
    reward: np.ndarray
    clipped: int = 0
    clamped: int = 0


class Shard:
    """A new shard, open for appending."""

    def __init__(self, path: Path) -> None:
        self._path, self._file, self._end = path, path.open("xb", buffering=0), 0

    def append(self, key: int, task: int, rows: Rows, terminated: bool, source: str) -> None:
        """Add an episode; when this returns, killing the process no longer loses it.

        Args:
            key: its place in the finished store; of records with one key, the first counts.
            task: index of its task.
            rows: its arrays.
            terminated: whether it ended by termination.
            source: what acted, at most 255 bytes of UTF-8.

        Raises:
            LitPWMError: it could not be written. The episodes before it stay, and the next one can be appended when
                there is room again.
        """
        name = source.encode()
        widths = rows.obs.shape[1], rows.action.shape[1]
        header = _HEADER.pack(
            MAGIC, 0, key, task, len(rows.reward), *widths, terminated, rows.clipped, rows.clamped, len(name)
        )
        arrays = (np.ascontiguousarray(array, "<f4").tobytes() for array in (rows.obs, rows.action, rows.reward))
        body = b"".join((header[_AFTER_CRC:], name, *arrays))
        record = memoryview(b"".join((MAGIC, zlib.crc32(body).to_bytes(4, "little"), body)))
        size = len(record)
        try:
            self._cut()  # again, where an earlier failure could not
            while record:
                record = record[self._file.write(record) :]
        except BaseException as error:
            with contextlib.suppress(OSError):
                self._cut()
            if not isinstance(error, OSError):
                raise
            raise LitPWMError(
                f"The episode could not be written to the shard {str(self._path)!r} ({error.strerror}). The episodes "
                f"before it are safe; make room there and go on."
            ) from error
        self._end += size

    def _cut(self) -> None:
        """Remove what follows the last whole record: readers stop at a torn one, so that it would hide later ones."""
        self._file.seek(self._end)
        self._file.truncate()

    def close(self) -> None:
        """Close it."""
        self._file.close()


def scan(path: Path) -> list[Record]:
    """The complete records of a shard, in order, without reading their rows."""
    records, position, end = [], 0, path.stat().st_size
    with path.open("rb") as file:
        while position + _HEADER.size <= end:
            file.seek(position)
            magic, _, key, task, length, obs_dim, action_dim, terminated, clipped, clamped, named = _HEADER.unpack(
                file.read(_HEADER.size)
            )
            size = _HEADER.size + named + 4 * ((length + 1) * obs_dim + length * (action_dim + 1))
            if magic != MAGIC or min(length, obs_dim, action_dim) < 1 or position + size > end:
                break
            source = file.read(named).decode(errors="replace")  # `read` sees whether it was changed
            records.append(
                Record(
                    path, position, size, key, task, length, obs_dim, action_dim, bool(terminated), clipped, clamped,
                    source,
                )
            )  # fmt: skip
            position += size
    return records


def read(record: Record) -> Rows:
    """The rows of a record.

    Raises:
        LitPWMError: they are not what was written.
    """
    with record.shard.open("rb") as file:
        file.seek(record.position)
        data = file.read(record.size)
    if zlib.crc32(memoryview(data)[_AFTER_CRC:]) != int.from_bytes(data[4:8], "little"):
        raise LitPWMError(
            f"The shard {str(record.shard)!r} is damaged: the episode at byte {record.position} does not have the "
            f"checksum it was written with. Remove that shard and run the command again; its episodes are made anew."
        )
    length, obs_dim, action_dim = record.length, record.obs_dim, record.action_dim
    values = np.frombuffer(data, "<f4", offset=_HEADER.size + len(record.source.encode()))
    obs, action, reward = np.split(values, np.cumsum([(length + 1) * obs_dim, length * action_dim]))
    arrays = obs.reshape(length + 1, obs_dim), action.reshape(length, action_dim), reward
    return Rows(*arrays, record.clipped, record.clamped)


def new_shard(folder: Path) -> Shard:
    """A shard in a folder, with a name that no other has."""
    number = len(list(folder.glob("*.shard")))
    while True:
        try:
            return Shard(folder / f"{number:05d}-{os.getpid()}.shard")
        except FileExistsError:
            number += 1
