"""Observations of gymnasium's spaces side by side in one row, as `gymnasium.spaces.flatten` puts them.

The order of a dictionary's entries is that of the environment's own space, as the description of the space has it, and
not the alphabet's, in which HDF5 lists them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lit_pwm.errors import LitPWMError

Keys = tuple[str | int, ...]
"""Where a part of an observation is: names of entries of dictionaries, and places in tuples."""


@dataclass(frozen=True, eq=False)
class SpacePart:
    """A part of a space that is no dictionary and no tuple.

    Attributes:
        keys: where it is; empty where it is the whole.
        shape: of its values.
        choices: number of choices of each of its entries, which are flattened to as many zeros and a one; None where
            its numbers are flattened as they are.
        start: the first choice of each entry.
    """

    keys: Keys
    shape: tuple[int, ...]
    choices: np.ndarray | None = None
    start: np.ndarray | int = 0

    @property
    def name(self) -> str:
        """Its keys as text."""
        return "/".join(map(str, self.keys))

    @property
    def width(self) -> int:
        """How many numbers it is flattened to."""
        return math.prod(self.shape) if self.choices is None else int(self.choices.sum())

    def flat(self, values: np.ndarray) -> np.ndarray:
        """Values of T steps [T, *shape] as rows [T, width].

        Raises:
            ValueError: they have another shape, or a choice is none of those that there are.
        """
        rows = values.reshape(len(values), -1)  # Arrow's files hold them so
        if rows.shape[1] != math.prod(self.shape):
            raise ValueError(f"has shape {list(values.shape)}, and its space {list(self.shape)}")
        if self.choices is None:
            return rows
        chosen = rows.astype(np.int64) - np.reshape(self.start, -1)
        if ((chosen < 0) | (chosen >= self.choices)).any():
            raise ValueError("holds a choice that its space does not have")
        out = np.zeros((len(rows), self.width))
        places = np.cumsum(self.choices) - self.choices + chosen
        np.put_along_axis(out, places, 1.0, axis=1)
        return out


def space_parts(space: Mapping[str, Any], what: str, keys: Keys = ()) -> list[SpacePart]:
    """The parts of a space, in the order in which they are flattened.

    Args:
        space: its description, as Minari has it in JSON.
        what: it is called in errors.
        keys: where it is.

    Raises:
        LitPWMError: it holds pixels, texts, or what else is no fixed number of numbers.
    """
    kind, at = space["type"], f"{what}{f' at {chr(47).join(map(str, keys))!r}' if keys else ''}"
    if kind in ("Dict", "Tuple"):
        subspaces = space["subspaces"]
        inner = subspaces.items() if kind == "Dict" else enumerate(subspaces)
        return [part for key, one in inner for part in space_parts(one, what, (*keys, key))]
    if kind == "Box":
        shape = tuple(space["shape"])
        if space["dtype"] == "uint8" and len(shape) == 3:
            raise LitPWMError(f"The {at} holds pixels, {list(shape)} in uint8; observations are rows of numbers.")
        return [SpacePart(keys, shape)]
    if kind == "MultiBinary":
        size = space["n"]
        return [SpacePart(keys, tuple(size) if isinstance(size, Sequence) else (int(size),))]
    if kind == "Discrete":
        return [SpacePart(keys, (), np.array([space["n"]]), int(space.get("start", 0)))]
    if kind == "MultiDiscrete":
        choices = np.array(space["nvec"])
        return [SpacePart(keys, choices.shape, choices.reshape(-1), np.array(space.get("start", 0)))]
    raise LitPWMError(f"The {at} is of the kind {kind}, which has no fixed number of numbers.")


def flattened(parts: Sequence[SpacePart], read: Callable[[Keys], np.ndarray], where: str) -> np.ndarray:
    """Observations of T steps as rows [T, O].

    Args:
        parts: of their space.
        read: gives a part's values [T, *shape].
        where: they are, for errors.

    Raises:
        LitPWMError: the values do not fit the space.
    """
    rows = []
    for part in parts:
        try:
            rows.append(part.flat(read(part.keys)))
        except ValueError as error:
            raise LitPWMError(f"The part {part.name!r} of {where} {error}; the data does not fit its space.") from error
    return np.concatenate(rows, axis=1)
