"""What is said of keys that are missing, extra or of another shape: one error for all formats."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lit_pwm.errors import LitPWMError

_SHOWN = 4


def check_keys(
    found: Mapping[Any, Any],
    wanted: Mapping[str, Sequence[int] | None],
    path: str | Path,
    title: str,
    hint: str = "",
) -> None:
    """See that a file holds the tensors that are wanted, of the right shapes, and no others.

    Args:
        found: what the file holds, by key.
        wanted: the shape of each key; None where any will do.
        path: the file.
        title: what the format is called.
        hint: what else may be wrong, a sentence.

    Raises:
        LitPWMError: it does not; keys are named with their shapes and the nearest of the other side.
    """
    missing = [key for key in wanted if key not in found]
    extra = [key for key in found if key not in wanted]
    faults = [_missing(key, wanted[key], extra or found) for key in missing]
    for key in extra:
        near = _nearest(str(key), missing or wanted)
        faults.append(f"{key!r:.120} is extra{f' (nearest: {near!r})' if near else ''}")
    for key, shape in wanted.items():
        if key in found and (fault := _misshapen(key, found[key], shape)):
            faults.append(fault)
    if faults:
        shown = "; ".join(faults[:_SHOWN]) + (f"; and {len(faults) - _SHOWN} more" if len(faults) > _SHOWN else "")
        raise LitPWMError(
            f"The checkpoint {str(path)!r} is not what {title} holds: {shown}. Nothing of it was loaded; use a whole "
            f"file of that format.{f' {hint}' if hint else ''}"
        )


def shape_of(value: Any) -> tuple[int, ...] | None:
    """The shape of a tensor; None for anything else."""
    return tuple(value.shape) if isinstance(value, Tensor) else None


def _missing(key: str, shape: Sequence[int] | None, others: Iterable[Any]) -> str:
    near = _nearest(key, [other for other in others if isinstance(other, str)])
    of_shape = "" if shape is None else f" of shape {list(shape)}"
    return f"{key!r}{of_shape} is missing{f' (nearest in the file: {near!r:.120})' if near else ''}"


def _misshapen(key: str, value: Any, shape: Sequence[int] | None) -> str | None:
    if (its := shape_of(value)) is None:
        return f"{key!r} is {type(value).__name__}, where a tensor is expected"
    if shape is not None and its != tuple(shape):
        return f"{key!r} has shape {list(its)}, where {list(shape)} is expected"
    if value.is_complex() or value.is_quantized or value.layout is not torch.strided:
        return (
            f"{key!r} is {str(value.dtype).removeprefix('torch.')} in {value.layout}, where real numbers are expected"
        )
    return f"{key!r} has a shape and no values (device meta)" if value.is_meta else None


def _nearest(key: str, others: Iterable[str]) -> str | None:
    return next(iter(difflib.get_close_matches(key, list(others), n=1, cutoff=0.6)), None)
