"""Stand-ins for classes of other projects that their files hold objects of: they keep what they are given, inertly."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from lit_pwm.errors import LitPWMError


class Statistics:
    """In place of PWM's running mean and deviation. It has no method: torch's safe reader only fills its attributes."""


STATISTICS = tuple(
    (Statistics, f"{package}.utils.running_mean_std.RunningMeanStd") for package in ("pwm", "flow_mbpo_pwm")
)
"""By the full names under which files hold it."""
_PARTS = ("mean", "var", "count")


def plain_statistics(value: Any, name: str, path: str | Path) -> dict[str, Any] | None:
    """What statistics hold, as plain values: `shape`, `mean`, `var` and `count`; None where they are not set.

    Raises:
        LitPWMError: it is something else.
    """
    if value is None:
        return None
    held = dict(value) if isinstance(value, Mapping) else dict(vars(value)) if isinstance(value, Statistics) else None
    if held is None or any(not isinstance(held.get(part), (Tensor, int, float)) for part in _PARTS):
        raise LitPWMError(
            f"The checkpoint {str(path)!r} holds a {type(value).__name__} under {name!r}, where running statistics "
            f"(mean, var and count) or None are expected. The file is damaged; use it as PWM wrote it."
        )
    shape = held.get("shape")
    listed = [int(width) for width in shape] if isinstance(shape, (tuple, list)) else []
    return {"shape": listed, **{part: held[part] for part in _PARTS}}
