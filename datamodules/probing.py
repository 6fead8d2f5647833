"""Whether HDF5 comes back from reading text of variable length.

h5py reads such text as `str`, so that names are stored as it. It lies in heaps without checksums, and a flipped bit
there can send HDF5 round for ever, or end the process, which no exception handler sees. So the heaps are looked at
before.
"""

from __future__ import annotations

import contextlib
import functools
import mmap
import os
import struct
import subprocess
import sys
from collections.abc import Iterator

import h5py
import numpy as np

from datamodules.layout import EPISODE_COLUMNS, ROW_COLUMNS, SPECS_VERSION

_SCANNED = 256 * 2**20
_SECONDS = 20
_PROGRAM = """
import sys, h5py
with h5py.File(sys.argv[1], "r", locking=False) as file:
    list(file.attrs.values()) if sys.argv[2] == "attributes" else file[sys.argv[2]][:]
"""
# Of a heap: signature, version, its size. Of each object in it: index, references, its size.
_HEAP, _OBJECT = struct.Struct("<4sB3xQ"), struct.Struct("<HH4xQ")


class Fault(Exception):
    """Something is wrong with one part of a file; the message goes on after the part's name."""


def require_readable(file: h5py.File, dtype: np.dtype, what: str) -> None:
    """Make sure that text of variable length can be read; anything else can.

    Args:
        file: where it lies.
        dtype: its type.
        what: `attributes`, or the name of a dataset in the file itself.

    Raises:
        Fault: reading it does not end, or may end the process.
    """
    if dtype.kind != "O":
        return
    state = os.stat(file.filename)
    gaps = tuple(_gaps(file, state.st_size))
    identity = state.st_ino, state.st_size, state.st_mtime_ns
    if sum(stop - start for start, stop in gaps) <= _SCANNED:
        fault = _heap_fault(file.filename, gaps, *identity)
    else:  # an archive in chunks, all of which would have to be searched
        fault = _tried(file.filename, what, *identity)
    if fault:
        raise Fault(fault)


def _gaps(file: h5py.File, size: int) -> Iterator[tuple[int, int]]:
    """Where the file has something else than a dataset's contiguous data: [start, stop), in order."""
    taken = []
    for name in (*ROW_COLUMNS, *(f"episode/{name}" for name in EPISODE_COLUMNS[SPECS_VERSION])):
        with contextlib.suppress(Exception):  # whatever is wrong with it is found when it is its turn
            parent: h5py.Group = file
            for part in name.split("/"):
                if isinstance(parent.get(part, getlink=True), h5py.HardLink):
                    parent = parent[part]
            place = parent.id.get_offset()
            if place is not None:
                taken.append((place, place + parent.id.get_storage_size()))
    start = 0
    for begin, end in sorted(taken):
        if start < begin <= size:
            yield start, begin
        start = max(start, end)
    if start < size:
        yield start, size


@functools.lru_cache(256)
def _heap_fault(path: str, gaps: tuple[tuple[int, int], ...], *identity: int) -> str | None:
    """What is wrong with a heap in these parts of a file; looked for once for each state of it."""
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        for start, stop in gaps:
            place = data.find(b"GCOL", start, stop)
            while place >= 0:
                if not _walks(data, place):
                    return f"cannot be read: the heap of texts at byte {place} is damaged"
                place = data.find(b"GCOL", place + 4, stop)
    return None


def _walks(data: mmap.mmap, place: int) -> bool:
    """Whether going from object to object leads to the heap's end, as HDF5 goes."""
    if place + _HEAP.size > len(data):
        return False
    _, version, size = _HEAP.unpack_from(data, place)
    end, place = place + size, place + _HEAP.size
    if version != 1 or end > len(data):
        return False
    while place + _OBJECT.size <= end:
        index, _, size = _OBJECT.unpack_from(data, place)
        step = size if index == 0 else _OBJECT.size + -(-size // 8) * 8  # what is free counts its own header
        if not _OBJECT.size <= step <= end - place:
            return False
        place += step
    return True


@functools.lru_cache(256)
def _tried(path: str, what: str, *identity: int) -> str | None:
    """What happens to another process that reads it; tried once for each state of a file."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-c", _PROGRAM, path, what],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"cannot be read: HDF5 has not come back after {_SECONDS} seconds"
    # An exception (code 1) is met again, and reported, in this process.
    return f"cannot be read: HDF5 ends the process (signal {-done.returncode})" if done.returncode < 0 else None
