"""The folder of shards beside a store's final name: locked for one writer at a time, and holding to its settings."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from datamodules.shards import MAGIC, Record, Shard, new_shard, scan
from lit_pwm.errors import LitPWMError
from lit_pwm.paths import absolute, holds_current
from lit_pwm.runtime.atomic import open_lock, replacing

_SETTINGS, _LOCK = "settings.json", "lock"
_OWN = ("*.shard", "assembled.h5", ".assembled.*.h5", ".settings.*.json", _SETTINGS, _LOCK)
"""What the folder of shards holds, in the order in which it is removed: never shards without their settings."""


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

    def __init__(self, final: Path, settings: Mapping[str, object]) -> None:
        final = absolute(final)
        self.final = final
        self.path = final.with_name(final.name + ".shards")
        refuse_existing(final)
        self._made = not self.path.exists()
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
            self._agree_on(json.loads(json.dumps({"shards": MAGIC.decode(), **settings})))
        except LitPWMError:
            self.close()
            raise

    def _agree_on(self, settings: dict[str, object]) -> None:
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
        self._remove(with_folder=True)
        self._lock.close()

    def _remove(self, with_folder: bool) -> None:
        """Remove what writers made, and the folder itself where it holds nothing else and is no link to another."""
        for pattern in _OWN:
            for path in self.path.glob(pattern):
                with contextlib.suppress(OSError):
                    path.unlink()
        if with_folder and not holds_current(self.path):
            with contextlib.suppress(OSError):
                self.path.rmdir()

    def close(self) -> None:
        """Leave the shards for another run to continue, or nothing where no episode was begun."""
        if not self._lock.closed and not self._has_episodes():
            self._remove(with_folder=self._made)
        self._lock.close()

    def __enter__(self) -> ShardFolder:
        """The folder itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""
        self.close()


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
