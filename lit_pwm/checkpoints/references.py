"""A policy's checkpoint without the frozen world model, which lies in a file of its own and never changes."""

from __future__ import annotations

import contextvars
import hashlib
from collections.abc import Callable, Mapping, MutableMapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from lit_pwm.errors import LitPWMError
from lit_pwm.runtime.supplied import WORLD_MODEL_OPTION, supplied

Load = Callable[[str], nn.Module]
SaveWorldModel = Literal["full", "reference"]
REFERENCE_KEY = "world_model_reference"
"""In a description: the fingerprint of the world model that the checkpoint leaves out, and the file it came from."""
_PREFIX = "world_model."
_being_read: contextvars.ContextVar[tuple[str, ...]] = contextvars.ContextVar("models_being_read", default=())


def fingerprint_of(world_model: nn.Module) -> str:
    """SHA-256 of a model's tensors: names, shapes and values, in single precision wherever it was trained."""
    digest = hashlib.sha256()
    for name, tensor in sorted(world_model.state_dict().items()):
        value = tensor.detach().cpu()
        value = (value.float() if value.is_floating_point() else value).contiguous()
        digest.update(f"{name} {value.dtype} {list(value.shape)}\n".encode())
        digest.update(memoryview(value.reshape(-1).view(torch.uint8).numpy()))
    return digest.hexdigest()


def leave_out(checkpoint: MutableMapping[str, Any], description: dict[str, Any], fingerprint: str, file: str) -> None:
    """Take a world model's tensors out of a checkpoint, in place, and say which they were.

    Args:
        checkpoint: about to be written.
        description: its description of networks.
        fingerprint: the world model's.
        file: holds it.
    """
    state = checkpoint["state_dict"]
    checkpoint["state_dict"] = {key: value for key, value in state.items() if not key.startswith(_PREFIX)}
    description[REFERENCE_KEY] = {"fingerprint": fingerprint, "file": file}


def reference_in(description: Mapping[str, Any], path: str | Path) -> tuple[str, str] | None:
    """Fingerprint and file of the world model that a checkpoint leaves out; None where it holds its own.

    Raises:
        LitPWMError: what it says of them cannot be read.
    """
    if (found := description.get(REFERENCE_KEY)) is None:
        return None
    values = [found.get(name) for name in ("fingerprint", "file")] if isinstance(found, Mapping) else [None]
    if not all(isinstance(value, str) for value in values):
        raise LitPWMError(
            f"The checkpoint {str(path)!r} leaves its world model out and does not say which it was: its "
            f"{REFERENCE_KEY!r} is {found!r:.80}. The file is damaged; use a checkpoint as a lit_pwm run wrote it."
        )
    return values[0], values[1]


def put_back(
    checkpoint: MutableMapping[str, Any], description: Mapping[str, Any], path: str | Path, load: Load
) -> None:
    """Put the world model that a checkpoint leaves out back into it, in place; nothing where it holds its own.

    It comes from the file that was supplied, else from the one that it was trained on.

    Args:
        checkpoint: as it was read.
        description: its description of networks.
        path: where it was read from.
        load: reads a world model from a file.

    Raises:
        LitPWMError: there is no such file, or the model in it is another one.
    """
    reference = reference_in(description, path)
    state = checkpoint["state_dict"]
    if reference is None or any(key.startswith(_PREFIX) for key in state):
        return
    fingerprint, trained_on = reference
    model = matching(fingerprint, supplied() or trained_on, f"The checkpoint {str(path)!r}", load)
    checkpoint["state_dict"] = {f"{_PREFIX}{key}": value for key, value in model.state_dict().items()} | dict(state)


def matching(fingerprint: str, file: str, whose: str, load: Load) -> nn.Module:
    """The world model in a file, which must be the one of this fingerprint.

    Args:
        fingerprint: of the model that is wanted.
        file: to look in.
        whose: what refers to it, for errors, such as `"The checkpoint 'last.ckpt'"`.
        load: reads a world model from a file.

    Raises:
        LitPWMError: it is not there, or another.
    """
    given = f"given with {WORLD_MODEL_OPTION}" if file == supplied() else "on which it was trained"
    refers = f"{whose} was saved without its world model (save_world_model: reference)"
    if "://" not in file and not Path(file).is_file():
        raise LitPWMError(
            f"{refers}, and the file {given}, {file!r}, does not exist. Name the file that holds the world model with "
            f"{WORLD_MODEL_OPTION} FILE (world_model=FILE in Python); its fingerprint is {fingerprint[:12]}."
        )
    if file in _being_read.get():
        raise LitPWMError(
            f"{refers}, and the file {given}, {file!r}, holds none either. Name the file that holds the world model "
            f"with {WORLD_MODEL_OPTION} FILE (world_model=FILE in Python)."
        )
    token = _being_read.set((*_being_read.get(), file))
    try:
        model = load(file)
    finally:
        _being_read.reset(token)
    if (found := fingerprint_of(model)) != fingerprint:
        raise LitPWMError(
            f"{refers}, and the world model in the file {given}, {file!r}, is another one, or was changed since: its "
            f"fingerprint is {found[:12]}, and {fingerprint[:12]} is needed. Name the file that the policy was trained "
            f"on with {WORLD_MODEL_OPTION} FILE (world_model=FILE in Python); trained further, it is another."
        )
    return model
