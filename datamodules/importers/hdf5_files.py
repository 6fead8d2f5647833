"""Other projects' HDF5 files, from which only what lies in the file itself is read.

An external link, external storage or a virtual dataset would have a file read others of the machine, whose content
would then be in a store that is passed on.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from pathlib import Path

import h5py
import hdf5plugin  # noqa: F401  (registers Blosc, Zstandard and others, by which files may be compressed)
import numpy as np

from datamodules.datasets import look_at_data
from datamodules.probing import Fault
from datamodules.structure import one_line
from lit_pwm.errors import LitPWMError


@contextlib.contextmanager
def open_hdf5(path: Path) -> Generator[h5py.File]:
    """A file open for reading.

    Raises:
        LitPWMError: it cannot be read as HDF5.
    """
    try:
        file = h5py.File(path, "r", locking=False)
    except Exception as error:  # HDF5 meets a damaged file with exceptions of any class
        raise LitPWMError(f"{str(path)!r} could not be read as HDF5 ({one_line(error)}).") from error
    with file:
        yield file


def own_names(path: Path) -> list[str]:
    """Names at the top of an HDF5 file; none where it is no such file."""
    if not path.is_file() or not h5py.is_hdf5(path):
        return []
    try:
        with open_hdf5(path) as file:
            return list(file)
    except Exception:  # what is wrong with it is said where it is read
        return []


def own_member(path: Path, group: h5py.Group, name: str) -> h5py.Group | h5py.Dataset:
    """A part of a group, which lies in the file itself.

    Raises:
        LitPWMError: it is not there, or a link to somewhere else.
    """
    where = f"{group.name.rstrip('/')}/{name}".lstrip("/")
    link = group.get(name, getlink=True)  # `in` would follow it
    if link is None:
        raise LitPWMError(f"{str(path)!r} has no {where!r}; the file is incomplete, or of another format.")
    if not isinstance(link, h5py.HardLink):
        kind = "an external link to another file" if isinstance(link, h5py.ExternalLink) else "a soft link"
        raise LitPWMError(
            f"{where!r} in {str(path)!r} is {kind}. Importers read what lies in the file itself; write it there "
            f"(h5py.File.copy with expand_external=True and expand_soft=True)."
        )
    try:
        return group[name]
    except Exception as error:
        raise LitPWMError(f"{where!r} in {str(path)!r} cannot be read ({one_line(error)}): it is damaged.") from error


class OwnArray:
    """A dataset of numbers whose data lies in the file itself.

    Attributes:
        shape: its shape.
        dtype: its type.

    Raises:
        LitPWMError: it is no dataset, or takes its data from elsewhere.
    """

    def __init__(self, path: Path, dataset: h5py.Group | h5py.Dataset) -> None:
        self._path, self._name = path, (dataset.name or "").lstrip("/")
        if not isinstance(dataset, h5py.Dataset):
            raise LitPWMError(f"{self._name!r} in {str(path)!r} is a group, where an array is expected.")
        plan = dataset.id.get_create_plist()
        virtual = plan.get_layout() == h5py.h5d.VIRTUAL
        if virtual or plan.get_external_count():
            raise LitPWMError(
                f"{self._name!r} in {str(path)!r} {'is a virtual dataset' if virtual else 'lies in external storage'}, "
                f"whose data is in other files. Importers read what lies in the file itself; write the data there."
            )
        self._dataset, self.dtype = dataset, dataset.dtype
        self.shape: tuple[int, ...] = dataset.shape or ()
        try:
            look_at_data(dataset, self._name, "")
        except Fault as fault:
            raise LitPWMError(f"{self._name!r} in {str(path)!r} {fault}: it is damaged or incomplete.") from fault

    def rows(self, start: int, stop: int) -> np.ndarray:
        """Rows start to stop - 1.

        Raises:
            LitPWMError: they cannot be read.
        """
        try:
            return self._dataset[start:stop]
        except Exception as error:
            raise LitPWMError(
                f"Rows {start:,} to {stop - 1:,} of {self._name!r} in {str(self._path)!r} cannot be read "
                f"({one_line(error)}). The file is damaged; copy it again."
            ) from error


def own_array(path: Path, group: h5py.Group, name: str) -> OwnArray:
    """A dataset of a group.

    Raises:
        LitPWMError: it is not there, no dataset, or does not lie in the file itself.
    """
    return OwnArray(path, own_member(path, group, name))
