"""Two-way maps between a format's keys and ours, with the order of a layer's input columns where it differs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

NATIVE_COLUMNS = ("z", "task", "action")
"""Inputs of our dynamics and heads, in order."""


@dataclass(frozen=True)
class KeyRow:
    """One row of a map.

    Attributes:
        foreign: a key of the format, or what keys begin with if it ends with a dot.
        native: likewise ours.
        columns: names of the inputs of the first layer under these keys (`0.weight`), in the foreign order, where that
            is not `NATIVE_COLUMNS`.
    """

    foreign: str
    native: str
    columns: tuple[str, ...] | None = None


class KeyMap:
    """An explicit list of rows, read in both directions.

    Args:
        rows: of which the first that fits a key counts.
    """

    def __init__(self, rows: Sequence[KeyRow]) -> None:
        self.rows = tuple(rows)

    def native(self, key: str) -> str | None:
        """Our key of a foreign one; None where the map has none."""
        return next((_moved(key, row.foreign, row.native) for row in self.rows if _fits(key, row.foreign)), None)

    def foreign(self, key: str) -> str | None:
        """The foreign key of one of ours; None where the map has none."""
        return next((_moved(key, row.native, row.foreign) for row in self.rows if _fits(key, row.native)), None)

    def to_native(self, foreign: Mapping[str, Tensor], widths: Mapping[str, int]) -> dict[str, Tensor]:
        """Tensors by our keys, their columns in our order; those that the map does not know are left out.

        Args:
            foreign: tensors by foreign keys.
            widths: of the inputs that columns are named by.
        """
        found = {}
        for key, value in foreign.items():
            if (ours := self.native(key)) is not None:
                columns = self._columns(ours)
                found[ours] = value if columns is None else _reordered(value, columns, NATIVE_COLUMNS, widths)
        return found

    def to_foreign(self, native: Mapping[str, Tensor], widths: Mapping[str, int]) -> dict[str, Tensor]:
        """The way back of `to_native`."""
        found = {}
        for key, value in native.items():
            if (theirs := self.foreign(key)) is not None:
                columns = self._columns(key)
                found[theirs] = value if columns is None else _reordered(value, NATIVE_COLUMNS, columns, widths)
        return found

    def _columns(self, native: str) -> tuple[str, ...] | None:
        row = next(row for row in self.rows if _fits(native, row.native))
        return row.columns if native == f"{row.native}0.weight" else None


def _fits(key: str, pattern: str) -> bool:
    return key.startswith(pattern) if pattern.endswith(".") else key == pattern


def _moved(key: str, pattern: str, place: str) -> str:
    return place + key.removeprefix(pattern)


def _reordered(weight: Tensor, now: Sequence[str], wanted: Sequence[str], widths: Mapping[str, int]) -> Tensor:
    blocks = dict(zip(now, weight.split([widths[name] for name in now], dim=1), strict=True))
    return torch.cat([blocks[name] for name in wanted], dim=1)
