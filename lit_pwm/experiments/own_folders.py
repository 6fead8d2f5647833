"""Folders that an experiment makes, holds against others, and may delete: those that it marked as its own."""

from __future__ import annotations

import contextlib
import fcntl
import shutil
from collections.abc import Generator, Iterable
from pathlib import Path

from lit_pwm.errors import LitPWMError
from lit_pwm.paths import holds_current
from lit_pwm.runtime.atomic import open_lock

MARK = "made_by_lit_pwm.json"
"""A file in each folder that an experiment made and may therefore delete."""

UNFINISHED = (".unfinished", ".replaced")
"""Endings of folders of runs that are being made, or have just been replaced."""


def make_own(folder: Path, known_by: Iterable[str] = ()) -> None:
    """Make a folder anew, deleting what was in it if this project made it.

    Args:
        folder: which; its name is its own, not that of a link.
        known_by: names of other files that tell that this project made it.

    Raises:
        LitPWMError: there is a folder that this project did not make, or it cannot be made.
    """
    remove_own(folder, known_by)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / MARK).touch()
    except OSError as error:
        raise LitPWMError(
            f"The folder {str(folder)!r} could not be made: {error.strerror or error}. Choose a place where you may "
            f"write."
        ) from error


def check_own(folder: Path, known_by: Iterable[str] = ()) -> None:
    """Make sure that a folder is not there, or empty, or one that this project made.

    Raises:
        LitPWMError: it is another, or no folder; or it would be deleted from under the process's own feet.
    """
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise LitPWMError(f"{str(folder)!r} is no folder, and lit-pwm needs one there. Move it away.")
    if folder.exists() and any(folder.iterdir()) and not any((folder / name).is_file() for name in (MARK, *known_by)):
        raise LitPWMError(
            f"The folder {str(folder)!r} would be deleted and made anew, but lit-pwm did not make it (it holds no "
            f"{MARK}). Move it away, or choose another place with --out."
        )
    if holds_current(folder):
        raise LitPWMError(
            f"The folder {str(folder)!r} would be deleted and made anew, and you are in it: the current folder is "
            f"{str(Path.cwd())!r}. Go to another one first."
        )


def remove_own(folder: Path, known_by: Iterable[str] = ()) -> None:
    """Delete a folder that this project made; nothing where there is none.

    Raises:
        LitPWMError: as `check_own`.
    """
    check_own(folder, known_by)
    if not folder.exists():
        return
    # The mark goes last, so that a deletion that was killed can be taken up.
    for path in folder.iterdir():
        if path.name != MARK:
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    shutil.rmtree(folder)


@contextlib.contextmanager
def only_one(folder: Path, who: str) -> Generator[int]:
    """Hold a folder against other processes.

    Args:
        folder: made if need be.
        who: works in it, for errors, such as `"demo"`.

    Yields:
        The file descriptor of the lock. Processes that inherit it hold the folder too.

    Raises:
        LitPWMError: another holds it, or it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = open_lock(folder / ".lock")
    except OSError as error:
        raise LitPWMError(
            f"The folder {str(folder)!r} cannot be written to: {error.strerror or error}. Choose another with --out."
        ) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise LitPWMError(
                f"Another {who} works in {str(folder)!r}, or a process of one that was killed still runs there. Wait "
                f"until it has ended, end it, or give another folder with --out."
            ) from None
        yield file.fileno()


@contextlib.contextmanager
def replacing_folder(final: Path, overwrite: bool, known_by: Iterable[str] = ()) -> Generator[Path]:
    """A folder beside `final` to write to, which takes its place when the block ends well.

    A folder that is there stays as it is until then. What a block that failed has written is left, under the name of
    `final` with `.unfinished` appended, until the next one begins.

    Args:
        final: where the folder is to be.
        overwrite: whether one that is there, and not empty, may be replaced.
        known_by: names of other files that tell that this project made it, as those of older versions.

    Raises:
        LitPWMError: there is one and it may not, or this project did not make it.
    """
    beside, before = (final.with_name(final.name + ending) for ending in UNFINISHED)
    if before.is_dir() and not final.exists():  # killed between the two renamings
        before.rename(final)
    if final.exists() and not overwrite and (not final.is_dir() or any(final.iterdir())):
        raise LitPWMError(
            f"There is a run in {str(final)!r} already. Keep it by choosing another folder with --out or another "
            f"--seed, or replace it with --overwrite, once the new one is finished."
        )
    check_own(final, known_by)
    remove_own(before, known_by)
    make_own(beside)
    yield beside
    check_own(final, known_by)  # whatever came meanwhile
    if final.exists():
        final.rename(before)
    beside.rename(final)
    remove_own(before, known_by)
