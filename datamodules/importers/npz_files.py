"""Arrays of `.npz` files, read a run of rows at a time and never unpickled."""

from __future__ import annotations

import math
import zipfile
import zlib
from pathlib import Path
from types import TracebackType
from typing import IO

import numpy as np

from lit_pwm.errors import LitPWMError

_SKIPPED = 2**24


def npz_members(path: Path) -> list[str]:
    """Names of the arrays of a file; none where it is no such file."""
    try:
        if not path.is_file() or not zipfile.is_zipfile(path):
            return []
        with zipfile.ZipFile(path) as file:
            return [name.removesuffix(".npy") for name in file.namelist() if name.endswith(".npy")]
    except (OSError, zipfile.BadZipFile, ValueError):
        return []


class NpzFile:
    """An `.npz` file open for reading, in a `with` statement.

    Rows of an array are read in rising order in one pass over it, compressed or not, so that no array is in memory as a
    whole (but for one that lies in Fortran's order), and the file's own checksum of an array is looked at once it was
    read to its end.

    Attributes:
        shapes: name → (shape, type) of each array of numbers in it.

    Raises:
        LitPWMError: it is damaged, or an array holds pickled objects.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._file = zipfile.ZipFile(path)
        except _ReadErrors as error:
            raise LitPWMError(f"{str(path)!r} could not be read as an .npz file ({error}).") from error
        self._arrays: dict[str, _Array] = {}
        self.shapes: dict[str, tuple[tuple[int, ...], np.dtype]] = {}
        for name in npz_members(path):
            array = self._begun(name)
            self.shapes[name] = array.shape, array.dtype
            array.file.close()

    def _begun(self, name: str) -> _Array:
        try:
            return _Array(self._file, name)
        except _ReadErrors as error:
            raise self._damaged(name, error) from error

    def _damaged(self, name: str, error: BaseException) -> LitPWMError:
        return LitPWMError(
            f"The array {name!r} of {str(self._path)!r} cannot be read: {(str(error).splitlines() or [''])[0][:200]}. "
            f"The file is damaged, or was made by something else than numpy.savez; copy it again."
        )

    def rows(self, name: str, start: int, stop: int) -> np.ndarray:
        """Rows start to stop - 1 of an array.

        Raises:
            LitPWMError: it holds pickled objects, or cannot be read.
        """
        if self.shapes[name][1].hasobject:
            raise LitPWMError(
                f"The array {name!r} of {str(self._path)!r} holds pickled Python objects, which may run any code and "
                f"are never loaded. Save it as an array of numbers."
            )
        if name not in self._arrays or self._arrays[name].next_row > start:
            self._arrays[name] = self._begun(name)
        try:
            return self._arrays[name].rows(start, stop)
        except _ReadErrors as error:
            raise self._damaged(name, error) from error

    def __enter__(self) -> NpzFile:
        """The file itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""
        self._file.close()


_ReadErrors = (OSError, EOFError, ValueError, NotImplementedError, RuntimeError, zlib.error, zipfile.BadZipFile)


class _Array:
    """One array of a file, being read.

    Raises:
        ValueError: it is none, or claims another size than it has; or one of zipfile's errors.
    """

    def __init__(self, archive: zipfile.ZipFile, name: str) -> None:
        self.file: IO[bytes] = archive.open(f"{name}.npy")
        version = np.lib.format.read_magic(self.file)
        header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        self.shape, self._fortran, self.dtype = header(self.file)
        self._row = math.prod(self.shape[1:]) * self.dtype.itemsize
        claimed, there = self._row * (self.shape[0] if self.shape else 1), archive.getinfo(f"{name}.npy").file_size
        if not self.dtype.hasobject and claimed + self.file.tell() != there:
            raise ValueError(f"it claims {claimed:,} bytes of {there:,}")
        self.next_row, self._whole = 0, None

    def rows(self, start: int, stop: int) -> np.ndarray:
        if self._fortran and len(self.shape) > 1:
            if self._whole is None:
                self._whole = self._numbers(self.shape[0], self.shape[::-1]).T
            return self._whole[start:stop]
        skipped = (start - self.next_row) * self._row
        while skipped > 0:
            skipped -= len(self._exactly(min(skipped, _SKIPPED)))
        self.next_row = stop
        return self._numbers(stop - start, (stop - start, *self.shape[1:]))

    def _numbers(self, rows: int, shape: tuple[int, ...]) -> np.ndarray:
        return np.frombuffer(self._exactly(rows * self._row), self.dtype).reshape(shape)

    def _exactly(self, count: int) -> bytes:
        data = self.file.read(count)
        if len(data) != count:
            raise EOFError("it ends too early")
        return data
