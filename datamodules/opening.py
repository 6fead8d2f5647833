"""Opening a store's file, and noticing that it has changed since."""

from __future__ import annotations

import contextlib
import logging
import os
import stat
from collections.abc import Generator
from pathlib import Path
from typing import NamedTuple

import h5py
import hdf5plugin  # noqa: F401  (registers Blosc, Zstandard and others, as which an archive may be compressed)

from datamodules.attributes import text_attribute, whole_numbers
from datamodules.layout import FORMAT, READ_VERSIONS
from datamodules.probing import Fault
from datamodules.structure import one_line
from lit_pwm.errors import LitPWMError
from lit_pwm.paths import absolute

_LOG = logging.getLogger(__name__)
_WRITERS = "`lit-pwm collect` or datamodules.EpisodeWriter"
_noticed: set[str] = set()


@contextlib.contextmanager
def open_store(path: str | os.PathLike[str]) -> Generator[tuple[h5py.File, int], None, None]:
    """The HDF5 file of a store, open for reading, and the version of its format.

    Raises:
        LitPWMError: there is no such file, or it is no episode store of a version that is read.
    """
    path = absolute(path)
    _require_file(path)
    try:
        file = h5py.File(path, "r", locking=False)
    except Exception as error:  # HDF5 meets a damaged file with exceptions of any class
        raise LitPWMError(
            f"The file {str(path)!r} could not be read as HDF5 ({one_line(error)}): it is no HDF5 file, or damaged. An "
            f"episode store is an HDF5 file written by {_WRITERS}."
        ) from error
    with file:
        version = _version(path, file)
        if version == 1:
            _notice(path, version)
        yield file, version


def _require_file(path: Path) -> None:
    try:
        kind = path.stat().st_mode
        what = "is a folder" if stat.S_ISDIR(kind) else "" if stat.S_ISREG(kind) else "is no regular file"
    except FileNotFoundError:
        what = "does not exist"
    except (OSError, ValueError) as error:
        what = f"cannot be opened ({one_line(error)})"
    if what:
        raise LitPWMError(f"The episode store {str(path)!r} {what}. Name an HDF5 file written by {_WRITERS}.")


def _version(path: Path, file: h5py.File) -> int:
    try:
        name = "".join(text_attribute(file, "format"))
    except Exception as error:
        name = str(error) if isinstance(error, Fault) else one_line(error)
        name = f"which {name}" if isinstance(error, Fault) else f"cannot be read ({name})"
        raise LitPWMError(
            f"The file {str(path)!r} is HDF5, but no episode store: it should have an attribute 'format' that says "
            f"{FORMAT!r}, {name} (None was found). Write stores with {_WRITERS}."
        ) from error
    if name != FORMAT:
        raise LitPWMError(
            f"The file {str(path)!r} is HDF5, but no episode store: its attribute 'format' is {name[:80]!r} and should "
            f"be {FORMAT!r}. Write stores with {_WRITERS}."
        )
    try:
        (version,) = whole_numbers(file, "format_version")
    except Exception as error:
        raise LitPWMError(
            f"The episode store {str(path)!r} has no readable attribute 'format_version' ({one_line(error)}), so that "
            f"it is not known how to read it. Write it anew with {_WRITERS}."
        ) from error
    if version not in READ_VERSIONS:
        raise LitPWMError(
            f"The episode store {str(path)!r} has format_version {version}; this version of lit_pwm reads "
            f"{', '.join(map(str, READ_VERSIONS))}. Read it with the version of lit_pwm that wrote it, or write it "
            f"anew."
        )
    return version


def _notice(path: Path, version: int) -> None:
    """Say once of each file in a process, and of several ranks only on the first, that it cannot be verified."""
    place = os.path.realpath(path)
    if place not in _noticed and os.environ.get("LOCAL_RANK", "0") == "0":
        _LOG.warning(
            "The episode store %r has format version %d, which has no checksums: `data check` sees impossible values, "
            "but not changed ones. Stores written from now on have them.",
            str(path),
            version,
        )
    _noticed.add(place)


class Identity(NamedTuple):
    """What tells that a file is the one that was opened, unchanged."""

    device: int
    number: int
    size: int
    modified_ns: int

    @classmethod
    def of(cls, path: str | os.PathLike[str]) -> Identity:
        """The identity of the file that has this name now.

        Raises:
            OSError: there is none.
        """
        found = os.stat(path)
        return cls(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)


def require_unchanged(path: Path, opened: Identity) -> None:
    """Make sure that a file is still the one that was opened: rows that are mapped but gone end the process (SIGBUS).

    Raises:
        LitPWMError: it is gone, another has its name, or its size or time of change is another.
    """
    try:
        now = Identity.of(path)
    except OSError as error:
        what = f"cannot be found any more ({error.strerror})"
    else:
        if now == opened:
            return
        what = (
            "was replaced by another file"
            if now[:2] != opened[:2]
            else f"was {opened.size:,} bytes long and is now {now.size:,}"
            if now.size != opened.size
            else "was written to"
        )
    raise LitPWMError(
        f"The episode store {str(path)!r} {what} since it was opened. A store must stay as it is while it is read: "
        f"write a new one under another name, and start again."
    )
