"""Options that several formats take, and how they are read."""

from __future__ import annotations

import argparse
import math

import numpy as np

from datamodules.importers.importer import ImportOption
from lit_pwm.errors import LitPWMError

Bounds = tuple[tuple[float, ...], tuple[float, ...]]
"""Lower and upper ones as they are given: of each entry, or one of all."""


def bounds(text: str) -> Bounds:
    """Lower and upper bounds, as they are written: `LOW,HIGH` for all entries, or `LOW,LOW,…:HIGH,HIGH,…`.

    Raises:
        argparse.ArgumentTypeError: they are not such, or a lower one is not below the upper one.
    """
    parts = text.split(":") if ":" in text else text.split(",")
    try:
        low, high = (tuple(float(number) for number in part.split(",")) for part in parts)
    except ValueError:
        low, high = (), (math.nan,)
    if len(low) != len(high) or not all(
        a < b and math.isfinite(a) and math.isfinite(b) for a, b in zip(low, high, strict=False)
    ):
        raise argparse.ArgumentTypeError(
            f"{text!r} are no bounds; write LOW,HIGH for all entries (-2,2), or LOW,LOW:HIGH,HIGH (-2,0:2,1), finite "
            f"numbers, each lower one below its upper one"
        )
    return low, high


TASK = ImportOption("--task", "the task's name, where the files name no environment", "NAME")
ACTION_BOUNDS = ImportOption(
    "--action-bounds",
    "bounds of actions, where the files have none: -2,2 for all entries, or -2,0,-1:2,1,3",
    "LOW,HIGH",
    bounds,
)


def bounds_of(given: Bounds | None, action_dim: int, what: str) -> tuple[np.ndarray, np.ndarray]:
    """Bounds of actions of a width, float64 [A] each.

    Args:
        given: value of `ACTION_BOUNDS`.
        action_dim: the width.
        what: the data, for errors.

    Raises:
        LitPWMError: there are none, or as many as the actions have no entries.
    """
    if given is None:
        raise LitPWMError(
            f"{what} does not say which bounds its actions of {action_dim} entries have. Give them: --action-bounds "
            f"LOW,HIGH for all entries, or LOW,LOW,…:HIGH,HIGH,…; they become [-1, 1]."
        )
    low, high = (np.array(side, np.float64) for side in given)
    if len(low) not in (1, action_dim):
        raise LitPWMError(
            f"--action-bounds gives bounds of {len(low)} entries, and the actions of {what} have {action_dim}. Give "
            f"two numbers for all, or {action_dim} lower and {action_dim} upper ones."
        )
    return np.broadcast_to(low, action_dim).copy(), np.broadcast_to(high, action_dim).copy()
