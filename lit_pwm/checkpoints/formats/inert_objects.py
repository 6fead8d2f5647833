"""Stand-ins for classes of other projects that their files hold objects of: they keep what they are given, inertly."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from lit_pwm.errors import LitPWMError


class Statistics:
    """In place of PWM's running mean and deviation. It has no method: torch's safe reader only fills its attributes."""


class NumpyType:
    """In place of numpy's dtype: its code, such as `f8`, and byte order."""

    def __init__(self, code: object = "", *_: object) -> None:
        self.code, self.order = code, "<"

    def __setstate__(self, state: object) -> None:
        """Keep the byte order of a pickled dtype's state."""
        self.order = state[1] if isinstance(state, tuple) and len(state) > 1 else "<"


class NumpyScalar:
    """In place of numpy's function that makes a scalar of a type and bytes: Flow-MBPO-PWM's `best_reward` is one."""

    def __init__(self, kind: object = None, data: object = b"") -> None:
        self.kind, self.data = kind, data


STUBS: tuple[tuple[type, str], ...] = (
    *((Statistics, f"{package}.utils.running_mean_std.RunningMeanStd") for package in ("pwm", "flow_mbpo_pwm")),
    *((NumpyScalar, f"numpy.{core}.multiarray.scalar") for core in ("_core", "core")),
    (NumpyType, "numpy.dtype"),
)
"""By the full names under which files hold them."""
_STRUCT = {"f8": "d", "f4": "f", "f2": "e", "i8": "q", "i4": "i", "i2": "h", "i1": "b", "u1": "B", "b1": "?"}
_DEEPEST = 50
_PARTS = ("mean", "var", "count")


def plain_numbers(value: Any, depth: int = 0) -> Any:
    """A value with the numbers that numpy made in it as Python's; what cannot be one stays as it is."""
    if isinstance(value, NumpyScalar):
        kind, code = value.kind, _STRUCT.get(value.kind.code) if isinstance(value.kind, NumpyType) else None
        order = kind.order if isinstance(kind, NumpyType) and kind.order in ("<", ">") else "<"
        whole = code is not None and isinstance(value.data, bytes) and len(value.data) == struct.calcsize(order + code)
        return struct.unpack(order + code, value.data)[0] if whole else value
    if depth < _DEEPEST and isinstance(value, Mapping):
        return {key: plain_numbers(entry, depth + 1) for key, entry in value.items()}
    if depth < _DEEPEST and type(value) in (list, tuple):
        return type(value)(plain_numbers(entry, depth + 1) for entry in value)
    return value


def plain_statistics(value: Any, name: str, path: str | Path) -> dict[str, Any] | None:
    """What statistics hold, as plain values: `shape`, `mean`, `var` and `count`; None where they are not set.

    Raises:
        LitPWMError: it is something else.
    """
    if value is None:
        return None
    held = dict(value) if isinstance(value, Mapping) else dict(vars(value)) if isinstance(value, Statistics) else None
    held = plain_numbers(held)
    if held is None or any(not isinstance(held.get(part), (Tensor, int, float)) for part in _PARTS):
        raise LitPWMError(
            f"The checkpoint {str(path)!r} holds a {type(value).__name__} under {name!r}, where running statistics "
            f"(mean, var and count) or None are expected. The file is damaged; use it as PWM wrote it."
        )
    shape = held.get("shape")
    listed = [int(width) for width in shape] if isinstance(shape, (tuple, list)) else []
    return {"shape": listed, **{part: held[part] for part in _PARTS}}
