"""The files in which Minari keeps episodes: groups of one HDF5 file, or a folder each of Arrow or Parquet files."""

from __future__ import annotations

import contextlib
import re
from abc import ABC, abstractmethod
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from datamodules.importers.arrow_arrays import own_table, values_of
from datamodules.importers.hdf5_files import OwnArray, open_hdf5, own_member
from lit_pwm.errors import LitPWMError


class MinariEpisode(ABC):
    """An episode's columns."""

    @abstractmethod
    def column(self, *keys: str | int) -> np.ndarray:
        """A column, or a part of one: `observations` have T + 1 rows, all others T."""


class MinariStorage(ABC):
    """A data set's files.

    Attributes:
        ids: of the episodes, in the order of numbers.
        files: that are read.
    """

    ids: list[int]
    files: list[Path]

    @abstractmethod
    def lengths(self) -> np.ndarray:
        """Actions T of each episode, int64 [E]."""

    @abstractmethod
    def episode(self, number: int) -> MinariEpisode:
        """An episode, by its place among the ids."""


class Hdf5Storage(MinariStorage):
    """`main_data.hdf5`, a group for each episode.

    Args:
        data: the folder `data`.
    """

    def __init__(self, data: Path) -> None:
        self.files, self._opening = [data / "main_data.hdf5"], contextlib.ExitStack()
        self._file = self._opening.enter_context(open_hdf5(self.files[0]))
        found = [re.fullmatch(r"episode_(\d+)", name) for name in self._file]
        self.ids = sorted(int(name[1]) for name in found if name)

    def lengths(self) -> np.ndarray:
        """As `MinariStorage`."""
        return np.array([self._length(number) for number in self.ids], np.int64)

    def _length(self, number: int) -> int:
        path = self.files[0]
        shape = OwnArray(path, _within(path, self._file, f"episode_{number}", "rewards")).shape
        if len(shape) not in (1, 2) or shape[0] < 1:
            raise LitPWMError(f"The rewards of episode {number} in {str(path)!r} have shape {list(shape)}, not [T].")
        return shape[0]

    def episode(self, number: int) -> MinariEpisode:
        """As `MinariStorage`."""
        return _Hdf5Episode(self.files[0], _within(self.files[0], self._file, f"episode_{self.ids[number]}"))


class _Hdf5Episode(MinariEpisode):
    def __init__(self, path: Path, group: h5py.Group) -> None:
        self._path, self._group = path, group

    def column(self, *keys: str | int) -> np.ndarray:
        names = [f"_index_{key}" if isinstance(key, int) else key for key in keys]
        array = OwnArray(self._path, _within(self._path, self._group, *names))
        return array.rows(0, array.shape[0] if array.shape else 0)


def _within(path: Path, group: Any, *names: str) -> Any:
    for name in names:
        if not isinstance(group, h5py.Group):
            raise LitPWMError(f"{group.name!r} in {str(path)!r} is an array, where its parts are expected.")
        group = own_member(path, group, name)
    return group


class ArrowStorage(MinariStorage):
    """A folder for each episode. There every column has T + 1 rows, the last of which is filler but in observations.

    Args:
        data: the folder `data`.
        kind: of the files, `arrow` or `parquet`.
    """

    def __init__(self, data: Path, kind: str) -> None:
        self._data, self._kind = data, kind
        self.ids = sorted(int(path.name) for path in data.iterdir() if path.is_dir() and path.name.isdecimal())
        self.files = [file for number in self.ids for file in self._files(number)]

    def _files(self, number: int) -> list[Path]:
        folder = self._data / str(number)
        files = sorted(folder.glob(f"*.{self._kind}"), key=lambda path: [int(n) for n in re.findall(r"\d+", path.name)])
        if not files:
            raise LitPWMError(f"{str(folder)!r} holds no .{self._kind} file; the data set is incomplete.")
        return files

    def lengths(self) -> np.ndarray:
        """As `MinariStorage`."""
        return np.array([len(own_table(self._files(number), self._kind, ["rewards"])) - 1 for number in self.ids])

    def episode(self, number: int) -> MinariEpisode:
        """As `MinariStorage`."""
        return _ArrowEpisode(self._files(self.ids[number]), self._kind)


class _ArrowEpisode(MinariEpisode):
    def __init__(self, files: list[Path], kind: str) -> None:
        self._files, self._table = files, own_table(files, kind)

    def column(self, *keys: str | int) -> np.ndarray:
        values = values_of(self._table, [str(key) for key in keys], self._files[0])
        return values if keys[0] == "observations" else values[:-1]


STORAGES = {
    "hdf5": Hdf5Storage,
    "arrow": partial(ArrowStorage, kind="arrow"),
    "parquet": partial(ArrowStorage, kind="parquet"),
}
"""By the name of the format."""
