"""Files and folders that are whole or not there: written beside their place, then renamed."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
from collections.abc import Generator
from pathlib import Path
from typing import BinaryIO

from lit_pwm.errors import LitPWMError
from lit_pwm.paths import absolute

_being_written: set[Path] = set()
_PART = re.compile(r"\..+\.(?P<host>[^.]+)\.(?P<pid>\d+)\.part")


@contextlib.contextmanager
def replacing(path: str | Path, what: str) -> Generator[Path, None, None]:
    """A path to write to, which takes the place of `path` if the block ends well and is removed if it does not.

    What was written is on the disk before it is renamed, so that a crash of the machine leaves the old or the new file.

    Args:
        path: where the file is to be; its folder is made if need be.
        what: what the file is, for errors, such as `"The evaluation's result"`.

    Yields:
        A path beside `path`, with the same ending.

    Raises:
        LitPWMError: the file cannot be written; raised for any OSError within the block.
    """
    path = absolute(path)
    with _in_its_place(path, path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}"), what) as beside:
        yield beside


@contextlib.contextmanager
def replacing_part(path: str | Path, what: str) -> Generator[Path, None, None]:
    """As `replacing`, for files that others look for by their ending: that of the path beside is `.part`.

    What killed processes of this machine have left of the same kind in the folder is removed first.

    Args:
        path: where the file is to be; its folder is made if need be.
        what: what the file is, for errors.

    Yields:
        A path beside `path`.

    Raises:
        LitPWMError: the file cannot be written; raised for any OSError within the block.
    """
    path = absolute(path)
    remove_abandoned(path.parent)
    with _in_its_place(path, path.with_name(f".{path.name}.{_host()}.{os.getpid()}.part"), what) as beside:
        yield beside


@contextlib.contextmanager
def replacing_folder(path: str | Path, what: str) -> Generator[Path, None, None]:
    """A folder to write into, which is given the name `path` if the block ends well and is removed if it does not.

    What killed processes of this machine have left beside it is removed first. A link is followed: the folder that it
    leads to is filled, and the link stays.

    Args:
        path: where the folder is to be, which must not exist or be empty.
        what: what the folder is, for errors, such as `"The data card"`.

    Yields:
        A folder beside `path`, empty.

    Raises:
        LitPWMError: the folder cannot be written; raised for any OSError within the block.
    """
    path = Path(os.path.realpath(absolute(path)))
    remove_abandoned(path.parent)
    beside = path.with_name(f".{path.name}.{_host()}.{os.getpid()}.part")
    _being_written.add(beside)
    try:
        beside.mkdir(parents=True)
        yield beside
        with contextlib.suppress(OSError):
            path.rmdir()  # an empty one
        beside.rename(path)
    except OSError as error:
        reason = error.strerror or (str(error).splitlines() or [type(error).__name__])[0]
        raise LitPWMError(
            f"{what} {str(path)!r} could not be written: {reason}{_room(path.parent)}. Name a folder in a place that "
            f"can be written to."
        ) from error
    except LitPWMError as error:  # of a file in it: named as it would have been
        if str(beside) not in str(error):
            raise
        raise LitPWMError(str(error).replace(str(beside), str(path))) from error
    finally:
        _remove(beside)
        _being_written.discard(beside)


@contextlib.contextmanager
def _in_its_place(path: Path, beside: Path, what: str) -> Generator[Path, None, None]:
    _being_written.add(beside)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield beside
        _to_disk(beside)
        beside.replace(path)
        with contextlib.suppress(OSError):  # not every file system knows it
            _to_disk(path.parent)
    except OSError as error:
        reason = error.strerror or (str(error).splitlines() or [type(error).__name__])[0]
        raise LitPWMError(
            f"{what} could not be written to {str(path)!r}: {reason}{_room(path.parent)}. Name a file in a folder that "
            f"can be written to."
        ) from error
    finally:
        with contextlib.suppress(OSError):
            beside.unlink()
        _being_written.discard(beside)


def open_lock(path: Path) -> BinaryIO:
    """A file to be locked, made if need be: nothing in it is changed, no link is followed, and no pipe waited for.

    Raises:
        OSError: it cannot be opened.
    """
    return open(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666), "rb+", buffering=0)


def _to_disk(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _room(folder: Path) -> str:
    """How much room the folder's disk has, where that may be what is wrong."""
    with contextlib.suppress(OSError):
        free = shutil.disk_usage(folder).free
        if free < 1 << 30:
            return f" (the disk of the folder {str(folder)!r} has {free / 1e6:.1f} MB left)"
    return ""


def _host() -> str:
    return re.sub(r"[^\w-]", "-", socket.gethostname()) or "host"


def remove_abandoned(folder: Path) -> None:
    """Remove the unfinished files and folders of processes of this machine that are gone."""
    with contextlib.suppress(OSError):
        for path in folder.glob(".*.part"):
            found = _PART.fullmatch(path.name)
            if found and found["host"] == _host() and not _is_running(int(found["pid"])):
                _remove(path)


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass  # another user's
    return True


def abandon_all() -> None:
    """Remove what is being written, for a process that is about to end at once."""
    for path in list(_being_written):
        _remove(path)


def _remove(path: Path) -> None:
    """Remove a file, or a folder with what it holds, as far as that can be done; links are not followed."""
    with contextlib.suppress(OSError):
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
