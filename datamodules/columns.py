"""How the columns of a store are reached: in memory or memory-mapped as one array, or in chunks through HDF5.

A column is a dataset of N rows, such as `obs [N, O]`. All classes answer the same two questions; the store picks one,
by how the dataset lies in its file and by the file's size.
"""

from __future__ import annotations

import math
import mmap
import os
import weakref
from pathlib import Path
from typing import Protocol

import h5py
import numpy as np

from datamodules.memory_limits import memory_limits
from datamodules.runs_of_rows import gather_runs, time_major
from lit_pwm.errors import LitPWMError


class Column(Protocol):
    """N rows, read in runs."""

    def read(self, start: int, stop: int) -> np.ndarray:
        """Rows start to stop - 1, not to be written to."""
        ...

    def windows(
        self, starts: np.ndarray, length: int, width: int | None = None, last: np.ndarray | None = None
    ) -> np.ndarray:
        """Runs of `length` rows from each start, time-major: [length, B, ...], a new array.

        Args:
            starts: first rows [B].
            length: rows of each run.
            width: keep only the first entries of each row.
            last: rows beyond which nothing is read [B]; they stand in place of those behind them.
        """
        ...


class ArrayColumn:
    """A column that is one numpy array, in memory or mapped."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array

    def read(self, start: int, stop: int) -> np.ndarray:
        """Rows start to stop - 1, a view."""
        return self.array[start:stop]

    def windows(
        self, starts: np.ndarray, length: int, width: int | None = None, last: np.ndarray | None = None
    ) -> np.ndarray:
        """[length, B, ...] in one gather."""
        runs = time_major(gather_runs(self.array, starts, length, last), slice(width))
        return runs if self.array.ndim > 1 else runs[..., 0]


class LargeMappedColumn:
    """A mapped column of a file that the page cache cannot hold.

    Where a window is read, the system by itself reads ahead (128 kB to 8 MB, by disk), which in such a file pushes out
    what will be needed sooner. Windows go through a mapping for which that is turned off, runs of rows through another.
    All windows of a batch are announced before the first is read, so that the disk brings many at a time.
    """

    def __init__(self, path: Path, offset: int, shape: tuple[int, ...], dtype: np.dtype) -> None:
        self._in_order = ArrayColumn(mapped(path, offset, shape, dtype))
        self._at_random = ArrayColumn(mapped(path, offset, shape, dtype, advice=mmap.MADV_RANDOM))
        self._offset, self._row = offset, dtype.itemsize * math.prod(shape[1:])
        self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        weakref.finalize(self, os.close, self._file)

    def read(self, start: int, stop: int) -> np.ndarray:
        """Rows start to stop - 1, a view."""
        return self._in_order.read(start, stop)

    def windows(
        self, starts: np.ndarray, length: int, width: int | None = None, last: np.ndarray | None = None
    ) -> np.ndarray:
        """[length, B, ...] in one gather."""
        if length and hasattr(os, "posix_fadvise"):  # not on macOS
            for begin in (self._offset + self._row * np.sort(starts)).tolist():
                os.posix_fadvise(self._file, begin, length * self._row, os.POSIX_FADV_WILLNEED)
        return self._at_random.windows(starts, length, width, last)


def mapped(path: Path, offset: int, shape: tuple[int, ...], dtype: np.dtype, advice: int | None = None) -> np.ndarray:
    """An array mapped from `offset` bytes into a file: it costs no memory of its own, and processes share it.

    Read-only, because Linux counts a private writable mapping (numpy's mode 'c') as memory that it may have to provide,
    and refuses one that is larger than memory and swap together.
    """
    with path.open("rb") as file:
        pages = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    if advice is not None:
        pages.madvise(advice)
    return np.frombuffer(pages, dtype, math.prod(shape), offset).reshape(shape)


def is_cached(size: int) -> bool:
    """Whether the page cache holds a file of so many bytes as a whole: half of this process's memory does."""
    return size < min([_physical_memory(), *memory_limits()]) / 2


def _physical_memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


class ChunkedColumn:
    """A column that HDF5 keeps in chunks, perhaps compressed; an archive format, 10 to 100 times slower at random.

    Both methods raise LitPWMError where a chunk cannot be read.
    """

    def __init__(self, path: Path, name: str) -> None:
        # The file stays open as long as the column lives. Its chunk cache holds the chunks of a batch's neighbours.
        self._dataset = h5py.File(path, "r", locking=False, rdcc_nbytes=64 * 2**20)[name]

    def read(self, start: int, stop: int) -> np.ndarray:
        """Rows start to stop - 1."""
        try:
            return self._dataset[start:stop]
        except (OSError, RuntimeError) as error:
            name, path = self._dataset.name.strip("/"), self._dataset.file.filename
            raise LitPWMError(
                f"Rows {start} to {stop - 1} of {name} in the episode store {path!r} cannot be read: "
                f"{str(error).splitlines()[0]}. The file is damaged; write the store anew, or copy it again."
            ) from error

    def windows(
        self, starts: np.ndarray, length: int, width: int | None = None, last: np.ndarray | None = None
    ) -> np.ndarray:
        """[length, B, ...], read in the order of the file."""
        stops = starts + length if last is None else np.minimum(starts + length, last + 1)
        shape = self._dataset.shape[1:] if width is None else (width,)
        out = np.empty((length, len(starts), *shape), self._dataset.dtype)
        for place in np.argsort(starts, kind="stable") if length else ():
            rows = self.read(int(starts[place]), int(stops[place]))
            out[: len(rows), place] = rows if width is None else rows[:, :width]
            out[len(rows) :, place] = out[len(rows) - 1, place]
        return out
