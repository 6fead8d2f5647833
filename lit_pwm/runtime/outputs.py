"""Checks of what a command shall write, before it works for it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Generator, Iterable
from pathlib import Path

from lit_pwm.errors import LitPWMError
from lit_pwm.paths import absolute


def check_file(path: str | Path, option: str, inputs: Iterable[str | Path] = ()) -> None:
    """Make sure that a file can be written, by writing one beside it.

    Args:
        path: the file, which may exist.
        option: that named it, for errors.
        inputs: files that the command reads, which it must not replace.

    Raises:
        LitPWMError: it cannot.
    """
    with _explained(str(path), option, "a file"):
        path = absolute(path)
        if path.is_dir():
            raise LitPWMError(f"{option} is {str(path)!r}, which is a folder. Name a file in it.")
        if path.exists() and not path.is_file():
            raise LitPWMError(f"{option} is {str(path)!r}, which is no regular file. Name one, new or to be replaced.")
        for read in inputs:
            if path.exists() and path.samefile(read):
                raise LitPWMError(f"{option} is {str(path)!r}, which is also read. Name another file.")
        _probe(path.parent, f".{path.stem}.{os.getpid()}{path.suffix}")


def check_folder(path: str | Path, option: str) -> None:
    """Make sure that files can be written into a folder, by writing one.

    Raises:
        LitPWMError: they cannot.
    """
    with _explained(str(path), option, "a folder"):
        path = absolute(path)
        if path.exists() and not path.is_dir():
            raise LitPWMError(f"{option} is {str(path)!r}, which is a file. Name a folder.")
        _probe(path, f".probe.{os.getpid()}")


class NewFolders:
    """Tells the folders that came while a command ran from those that stood before it, to remove the former alone.

    Args:
        roots: folders in which the command may make others, and which it makes itself where they are not there.
    """

    def __init__(self, roots: Iterable[str | Path]) -> None:
        self._roots = {Path(root).absolute() for root in roots}
        looked_at = {above for root in self._roots for above in (root, *root.parents)}
        self._new = {folder: not os.path.exists(folder) for folder in looked_at}
        self._stood: set[Path] = set()
        for root in self._roots:
            with contextlib.suppress(OSError):
                self._stood.update(root.iterdir())

    def remove_empty(self, folders: Iterable[str | Path]) -> None:
        """Remove folders that hold nothing, and those above that hold nothing then: those that are new, no others."""
        for folder in (Path(folder).absolute() for folder in folders):
            for above in (folder, *folder.parents):
                if not self._is_new(above):
                    break
                with contextlib.suppress(OSError):
                    above.rmdir()

    def _is_new(self, folder: Path) -> bool:
        if folder in self._new:
            return self._new[folder]
        if folder.parent in self._roots:
            return folder not in self._stood
        return folder != folder.parent and self._is_new(folder.parent)


def _probe(folder: Path, name: str) -> None:
    """Write a file, and leave everything as it was."""
    made = [above for above in (folder, *folder.parents) if not above.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
        (folder / name).unlink()
    finally:
        for above in made:
            with contextlib.suppress(OSError):
                above.rmdir()


@contextlib.contextmanager
def _explained(shown: str, option: str, what: str) -> Generator[None]:
    try:
        yield
    except LitPWMError as error:
        raise error if str(error).startswith(option) else LitPWMError(f"{option} is {shown!a}: {error}") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise LitPWMError(
            f"{option} is {shown!r}, where nothing can be written: {reason}. Name {what} where you may write."
        ) from error
