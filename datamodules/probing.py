"""Whether HDF5 comes back from reading text of variable length, tried in another process.

Such text lies in a heap without checksums, and a flipped bit there can send HDF5 round for ever or end the process,
which no exception handler sees. Stores of version 2 have text of fixed length; those of version 1, and others' files,
do not.
"""

from __future__ import annotations

import functools
import os
import subprocess
import sys

import h5py
import numpy as np

_SECONDS = 20
_PROGRAM = """
import sys, h5py
with h5py.File(sys.argv[1], "r", locking=False) as file:
    list(file.attrs.values()) if sys.argv[2] == "attributes" else file[sys.argv[2]][:]
"""


class Fault(Exception):
    """Something is wrong with one part of a file; the message goes on after the part's name."""


def require_readable(file: h5py.File, dtype: np.dtype, what: str) -> None:
    """Make sure that text of variable length can be read; anything else can.

    Args:
        file: where it lies.
        dtype: its type.
        what: `attributes`, or the name of a dataset in the file itself.

    Raises:
        Fault: reading it does not end, or ends the process.
    """
    if dtype.kind == "O":
        state = os.stat(file.filename)
        if fault := _fault(file.filename, what, state.st_ino, state.st_size, state.st_mtime_ns):
            raise Fault(fault)


@functools.lru_cache(256)
def _fault(path: str, what: str, *identity: int) -> str | None:
    """What is wrong; tried once for each state of a file."""
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
