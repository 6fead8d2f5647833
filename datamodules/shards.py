"""Shards: the crash-safe, append-only files in which episodes wait until their store is complete.

A shard is a sequence of records, each a header, the source's name, and the rows of one episode in its task's true
widths. A record is handed to the operating system in one piece as soon as it is complete, so that a process killed at
any moment leaves every finished episode, and at most one torn record at a shard's end, which readers leave out. Shards
are never written to again: a process that continues opens a new one.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np

from lit_pwm.atomic import open_lock, replacing
from lit_pwm.errors import LitPWMError
from lit_pwm.paths import absolute

# Magic, CRC-32 of what follows, key, task index, actions T, observation and action width, terminated, clipped actions,
# clamped rewards, source's bytes.
_HEADER = struct.Struct("<4sIqiiiiBqqH")
_MAGIC = b"LPE2"
_AFTER_CRC = 8

_SETTINGS, _LOCK = "settings.json", "lock"
_OWN = ("*.shard", "assembled.h5", ".assembled.*.h5", ".settings.*.json", _SETTINGS, _LOCK)
"""What the folder of shards holds, in the order in which it is removed: never shards without their settings."""


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
            _MAGIC, 0, key, task, len(rows.reward), *widths, terminated, rows.clipped, rows.clamped, len(name)
        )
        arrays = (np.ascontiguousarray(array, "<f4").tobytes() for array in (rows.obs, rows.action, rows.reward))
        body = b"".join((header[_AFTER_CRC:], name, *arrays))
        record = memoryview(b"".join((_MAGIC, zlib.crc32(body).to_bytes(4, "little"), body)))
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
            if magic != _MAGIC or min(length, obs_dim, action_dim) < 1 or position + size > end:
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


class ShardFolder:
    """The folder beside a store's final name that holds its shards, locked for one writing command at a time.

    Args:
        final: the store's final name; the folder's is that with `.shards` appended.
        settings: what the episodes depend on. Shards made with other settings are refused.

    Attributes:
        final: the store's final name.
        path: the folder.

    Raises:
        LitPWMError: the final file exists, another process is writing, or the shards were made with other settings.
    """

    def __init__(self, final: Path, settings: Mapping[str, Any]) -> None:
        final = absolute(final)
        self.final = final
        self.path = final.with_name(final.name + ".shards")
        refuse_existing(final)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = open_lock(self.path / _LOCK)
        except (OSError, ValueError) as error:
            raise LitPWMError(
                f"The folder {str(self.path)!r} for the shards of {str(final)!r} could not be made ({error}). Choose "
                f"a place for the store where you may write."
            ) from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._lock.close()
            raise LitPWMError(
                f"Another process is writing {str(final)!r} (it holds the lock in {str(self.path)!r}). Wait until it "
                f"has finished, or choose another name."
            ) from None
        try:
            self._agree_on(json.loads(json.dumps({"shards": _MAGIC.decode(), **settings})))
        except LitPWMError:
            self.close()
            raise

    def _agree_on(self, settings: dict[str, Any]) -> None:
        path = self.path / _SETTINGS
        if not path.exists():
            if self._has_episodes():
                raise LitPWMError(
                    f"The folder {str(self.path)!r} holds episodes without the {_SETTINGS} that says what they depend "
                    f"on, so that it is not known whether they belong to this store. Remove the folder to start anew."
                )
            with replacing(path, "What an unfinished store depends on") as beside:
                beside.write_text(json.dumps(settings, indent=1))
            return
        try:
            if not path.is_file():
                raise ValueError("it is no file")
            found = json.loads(path.read_bytes())
            found.keys()
        except (OSError, ValueError, AttributeError, RecursionError) as error:
            raise LitPWMError(
                f"The file {str(path)!r}, which says what the episodes of an unfinished run depend on, is damaged "
                f"({error}). Remove its folder to start anew."
            ) from error
        # As texts, because shards know a task by its number: the same tasks in another order are other settings.
        former, now = ({key: json.dumps(value) for key, value in each.items()} for each in (found, settings))
        differing = [key for key in sorted({*former, *now}) if former.get(key) != now.get(key)]
        if differing:
            raise LitPWMError(
                f"The folder {str(self.path)!r} holds episodes of an unfinished run with other settings: "
                + "; ".join(f"{key} was {found.get(key)!r} and is now {settings.get(key)!r}" for key in differing)
                + ". Continue with the former settings, or remove the folder to start anew."
            )

    def _shards(self) -> list[Path]:
        """The shards: files, nothing else of such a name."""
        return sorted(path for path in self.path.glob("*.shard") if path.is_file())

    def _has_episodes(self) -> bool:
        """Whether any was begun."""
        return any(shard.stat().st_size for shard in self._shards())

    def records(self) -> dict[int, Record]:
        """The complete records of all shards by key, in the order of the keys."""
        found: dict[int, Record] = {}
        for shard in self._shards():
            for record in scan(shard):
                found.setdefault(record.key, record)
        return dict(sorted(found.items()))

    def new_shard(self) -> Shard:
        """A shard with a name that no other has, also when several processes ask."""
        return new_shard(self.path)

    def publish(self, assembled: Path) -> None:
        """Give the assembled file its final name, never in the place of another, and remove the shards.

        Raises:
            LitPWMError: a file of that name has appeared meanwhile.
        """
        try:
            os.link(assembled, self.final)  # unlike a renaming, it replaces no file
        except FileExistsError as error:
            raise _exists(self.final) from error
        except OSError:  # a file system without hard links
            refuse_existing(self.final)
            assembled.rename(self.final)
        self._remove()
        self._lock.close()

    def _remove(self) -> None:
        """Remove the folder, or what writers made in it where it holds something else or is a link to another."""
        for pattern in _OWN:
            for path in self.path.glob(pattern):
                with contextlib.suppress(OSError):
                    path.unlink()
        with contextlib.suppress(OSError):
            self.path.rmdir()

    def close(self) -> None:
        """Leave the shards for another run to continue, or nothing where no episode was begun."""
        if not self._lock.closed and not self._has_episodes():
            self._remove()
        self._lock.close()

    def __enter__(self) -> ShardFolder:
        """The folder itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""
        self.close()


def new_shard(folder: Path) -> Shard:
    """A shard in a folder, with a name that no other has."""
    number = len(list(folder.glob("*.shard")))
    while True:
        try:
            return Shard(folder / f"{number:05d}-{os.getpid()}.shard")
        except FileExistsError:
            number += 1


def refuse_existing(final: Path) -> None:
    """Make sure that there is no file of the store's final name.

    Raises:
        LitPWMError: there is one.
    """
    if os.path.lexists(final):  # a link that leads nowhere counts too
        raise _exists(final)


def _exists(final: Path) -> LitPWMError:
    return LitPWMError(
        f"The store {str(final)!r} exists already, and stores are never written over. Choose another name, or remove "
        f"it first."
    )
