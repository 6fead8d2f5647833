"""Reading a checkpoint's file without running anything that it holds."""

from __future__ import annotations

import contextlib
import pickle
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from lit_pwm.checkpoints.wholeness import require_whole
from lit_pwm.errors import LitPWMError
from lit_pwm.paths import is_url
from lit_pwm.runtime.remote_files import local_file

_ADVICE = "weights_only"
"""In texts of torch's that advise to read a file unsafely, which are not passed on."""
Stubs = Sequence[tuple[type, str]]
"""Inert classes, and the full names in files of the classes that they stand for."""


def read_checkpoint(path: str | Path, stubs: Stubs = ()) -> dict[str, Any]:
    """Read a checkpoint without running any code that it might contain.

    Args:
        path: the file, or the URL of one (`lit_pwm.runtime.remote_files`).
        stubs: classes that take the place of foreign ones of these names; objects of others are refused.

    Raises:
        LitPWMError: the file is missing, is no checkpoint, holds Python objects, or was changed since it was written.
    """
    with local_file(path) as place:
        return _read(place, path if is_url(path) else place, stubs)


def _read(place: Path, path: str | Path, stubs: Stubs) -> dict[str, Any]:
    """What lies in a local file, which errors call by `path`."""
    if not place.is_file():
        found = "is a folder" if place.is_dir() else "is no regular file" if place.exists() else "does not exist"
        raise LitPWMError(
            f"The checkpoint {str(path)!r} {found}. A run leaves its checkpoints under its trainer.default_root_dir, "
            f"in a folder called checkpoints: name one of those files, for example last.ckpt."
        )
    try:
        with (
            torch.serialization.safe_globals([*stubs]),
            warnings.catch_warnings(action="ignore"),
        ):  # of pickles that are not torch's, which the errors below name
            content = torch.load(place, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged bytes make the reader fail in any way
        if not (isinstance(error, pickle.UnpicklingError) or _ADVICE in str(error)):
            raise LitPWMError(
                f"The file {str(path)!r} is no checkpoint, or an incomplete one ({named(error)}). Use a checkpoint "
                f"that a lit_pwm run wrote."
            ) from error
        raise LitPWMError(
            f"The checkpoint {str(path)!r} cannot be read safely: it is damaged, or holds Python objects beside "
            f"tensors and plain values{_objects_in(place)}. Use a checkpoint that a lit_pwm run wrote."
        ) from error
    require_whole(place, path)
    if not isinstance(content, dict):
        raise LitPWMError(
            f"The file {str(path)!r} holds a {type(content).__name__} where a checkpoint is a dictionary with a "
            f"'state_dict'. Use a checkpoint that a lit_pwm run wrote."
        )
    return content


def _objects_in(path: Path) -> str:
    """Which Python objects a checkpoint would make, where that can be told without making them."""
    with contextlib.suppress(Exception):
        if found := sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path)):
            return f" ({', '.join(found[:5])})"
    return ""


def named(error: Exception) -> str:
    """What an error says, in one line; its kind before words that say little alone, such as a missing key."""
    said = first_line(error)
    return said if " " in said or said == type(error).__name__ else f"{type(error).__name__}: {said}"


def first_line(error: Exception) -> str:
    """What an error says, in one line."""
    return next(iter(str(error).splitlines()), type(error).__name__)
