"""The folder beside a store's final name in which it is made, locked for one writer at a time."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from lit_pwm.errors import LitPWMError
from lit_pwm.paths import absolute, holds_current
from lit_pwm.runtime.atomic import open_lock, replacing

SETTINGS, _LOCK = "settings.json", "lock"
_SETTINGS_FILES = (".settings.*.json", SETTINGS, _LOCK)


class WorkingFolder(ABC):
    """A folder beside a store's final name, locked for one writing command at a time; its kinds say what it holds.

    Args:
        final: the store's final name; the folder's is that with `suffix` appended.
        settings: what the episodes depend on. Episodes written with other settings are refused.

    Attributes:
        suffix: of the folder's name.
        own: patterns of the files in it, in the order in which they are removed, beside settings and lock.
        content: what it holds, for errors.
        final: the store's final name.
        path: the folder.

    Raises:
        LitPWMError: the final file exists, another process is writing, or the folder's episodes have other settings.
    """

    suffix: str
    own: tuple[str, ...]
    content: str

    def __init__(self, final: Path, settings: Mapping[str, object]) -> None:
        final = absolute(final)
        self.final = final
        self.path = final.with_name(final.name + self.suffix)
        refuse_existing(final)
        try:
            self._made = not self.path.exists()
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = open_lock(self.path / _LOCK)
        except (OSError, ValueError) as error:
            raise LitPWMError(
                f"The folder {str(self.path)!r} for the {self.content} of {str(final)!r} could not be made ({error}). "
                f"Choose a place for the store where you may write."
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
            self._agree_on(json.loads(json.dumps(settings)))
        except LitPWMError:
            self.close()
            raise

    def _agree_on(self, settings: dict[str, object]) -> None:
        path = self.path / SETTINGS
        if not path.exists():
            if self._has_episodes():
                raise LitPWMError(
                    f"The folder {str(self.path)!r} holds episodes without the {SETTINGS} that says what they depend "
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

    @abstractmethod
    def _has_episodes(self) -> bool:
        """Whether any was begun."""

    def publish(self, whole: Path) -> None:
        """Give the finished file its final name, never in the place of another, and remove the folder.

        Raises:
            LitPWMError: a file of that name has appeared meanwhile.
        """
        try:
            os.link(whole, self.final)  # unlike a renaming, it replaces no file
        except FileExistsError as error:
            raise _exists(self.final) from error
        except OSError:  # a file system without hard links
            refuse_existing(self.final)
            whole.rename(self.final)
        self._remove(with_folder=True)
        self._lock.close()

    def _remove(self, with_folder: bool) -> None:
        """Remove what writers made, and the folder itself where it holds nothing else and is no link to another."""
        remove(self.path, self.own, with_folder)

    def close(self) -> None:
        """Leave the episodes for another run to continue, or nothing where no episode was begun."""
        if not self._lock.closed and not self._has_episodes():
            self._remove(with_folder=self._made)
        self._lock.close()

    def __enter__(self) -> Self:
        """The folder itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""
        self.close()


def remove(folder: Path, own: Sequence[str], with_folder: bool = True) -> None:
    """Remove the files of some patterns, settings and lock, and with them the folder where it is then empty."""
    for pattern in (*own, *_SETTINGS_FILES):
        for path in folder.glob(pattern):
            with contextlib.suppress(OSError):
                path.unlink()
    if with_folder and not holds_current(folder):
        with contextlib.suppress(OSError):
            folder.rmdir()


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
