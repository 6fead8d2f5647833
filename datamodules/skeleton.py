"""An HDF5 file's own structures, made in memory; what the datasets hold is then written with plain writes.

HDF5 does not survive a disk that fills up while it writes: a signal ends the process, then or at its end. Plain writes
fail with an OSError, and are all there is to contiguous, uncompressed datasets.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

import h5py
import numpy as np
from numpy.typing import DTypeLike

_PAGE = 4096


class _Extents:
    """A file in memory that keeps what was written to it alone, so that space for rows costs nothing."""

    def __init__(self) -> None:
        self.extents: list[tuple[int, bytes]] = []
        self.size = self._position = 0

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._position = offset + (self.size if whence == os.SEEK_END else 0)
        return self._position

    def tell(self) -> int:
        return self._position

    def truncate(self, size: int) -> int:
        self.size = size
        return size

    def flush(self) -> None:
        pass

    def write(self, data: memoryview) -> int:
        self.extents.append((self._position, bytes(data)))
        self._position += len(data)
        self.size = max(self.size, self._position)
        return len(data)

    def readinto(self, buffer: memoryview) -> int:
        begin, end = self._position, self._position + len(buffer)
        buffer[:] = bytes(len(buffer))
        for place, data in self.extents:
            first, last = max(begin, place), min(end, place + len(data))
            if first < last:
                buffer[first - begin : last - begin] = data[first - place : last - place]
        self._position = end
        return len(buffer)

    def read(self, count: int) -> bytes:
        data = bytearray(count)
        self.readinto(memoryview(data))
        return bytes(data)


def _structures(
    datasets: Mapping[str, tuple[tuple[int, ...], DTypeLike]], attributes: Mapping[str, object]
) -> tuple[_Extents, dict[str, int]]:
    """A file of some datasets, none of which is written to, and attributes; and where each dataset lies in it."""
    extents, places = _Extents(), {}
    plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plan.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    plan.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    plan.set_obj_track_times(False)
    # Page-aligned, so that mapped columns are aligned arrays. Since version 1.8 of HDF5's own format most structures
    # have checksums, and attributes may be larger than 64 kB.
    options = {"libver": ("v108", "v108"), "alignment_threshold": _PAGE, "alignment_interval": _PAGE}
    with h5py.File(extents, "w", track_times=False, **options) as file:
        file.create_group("episode", track_times=False)
        for name, (shape, dtype) in datasets.items():
            places[name] = file.create_dataset(name, shape, dtype, dcpl=plan).id.get_offset()
        for name, value in attributes.items():
            file.attrs[name] = value
    return extents, places


class PlainFile:
    """An HDF5 file of contiguous datasets and of attributes that are known only when all data has been written.

    Args:
        path: where; must not exist, but for a file that is continued.
        datasets: shape and type by name, such as `obs` or `episode/offset`, in the file's order.
        attributes: name → a value of the shape and type that it will have.
        continued: go on with a file of the same datasets and attributes.

    Raises:
        OSError: as all methods do, where the file cannot be written.
    """

    def __init__(
        self,
        path: Path,
        datasets: Mapping[str, tuple[tuple[int, ...], DTypeLike]],
        attributes: Mapping[str, object],
        continued: bool = False,
    ) -> None:
        self._datasets = datasets
        extents, self._places = _structures(datasets, attributes)
        self.size = extents.size
        self._file = path.open("r+b" if continued else "x+b")
        self._file.truncate(extents.size)

    def allocate(self) -> None:
        """Have the disk set aside room for the whole file now, so that it cannot fill up on the way."""
        os.posix_fallocate(self._file.fileno(), 0, self.size)

    def to_disk(self) -> None:
        """Return when what was written is on the disk."""
        self._file.flush()
        os.fsync(self._file.fileno())

    def put(self, name: str, start: int, rows: np.ndarray) -> None:
        """Write rows of a dataset, in its type, from row `start` on."""
        data = np.ascontiguousarray(rows)
        self._file.seek(self._places[name] + start * (data.nbytes // max(len(data), 1)))
        self._file.write(data.data)

    def get(self, name: str, start: int, stop: int) -> np.ndarray:
        """Rows start to stop - 1 of a dataset, as they were written."""
        (_, *width), dtype = self._datasets[name]
        rows = np.empty((stop - start, *width), dtype)
        self._file.seek(self._places[name] + start * (rows.nbytes // max(len(rows), 1)))
        if self._file.readinto(rows.reshape(-1).view(np.uint8).data) != rows.nbytes:
            raise OSError(f"the file ends within the rows of {name}")
        return rows

    def put_attributes(self, attributes: Mapping[str, object]) -> None:
        """Write the file's structures, with attributes of the promised shapes and types."""
        extents, places = _structures(self._datasets, attributes)
        if places != self._places:
            raise RuntimeError(f"the datasets lie at {places}, and were written at {self._places}")
        for place, data in extents.extents:
            self._file.seek(place)
            self._file.write(data)

    def __enter__(self) -> PlainFile:
        """The file itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""
        self._file.close()
