"""What a checkpoint is and holds, as plain values: nothing of it is built, run or trusted."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from lit_pwm.checkpoints.migration import PROVENANCE_KEY, SETTINGS_KEY
from lit_pwm.checkpoints.native import DESCRIPTION_KEY, described_in, read_checkpoint
from lit_pwm.checkpoints.references import REFERENCE_KEY
from lit_pwm.errors import LitPWMError
from lit_pwm.models.sizes import SIZES
from lit_pwm.paths import absolute

_NETWORKS = ("world_model", "actor", "critic")
_STATISTICS = (".obs_mean", ".obs_std", "_variance.value", ".directions", ".action_mask")
"""Ends of the keys of what networks hold beside their parameters."""
_DEEPEST = 30
"""Levels of a config that are shown; a file may nest without end."""


def inspect_checkpoint(path: str | Path) -> dict[str, Any]:
    """What a checkpoint is and holds, as JSON can hold it.

    Args:
        path: the checkpoint.

    Returns:
        `path`, `bytes`, `kind`, `format` (name and version), `sizes` (widths, parameters by part, TD-MPC2's name for
        the size where it has one), `components` (class paths and options), `tasks` (name → widths), `trained_tasks`,
        `world_model_reference` (fingerprint and file of a world model that is left out), `step`, `epoch`, `config`,
        `metrics`, `data` (fingerprint, tasks), `versions`, `bytes_by_part`. What a file does not say is None or empty.

    Raises:
        LitPWMError: the file is missing, unreadable, no checkpoint, or of a kind that is not known.
    """
    raw = read_checkpoint(path)
    try:
        return _described(raw, path)
    except LitPWMError:
        raise
    except Exception as error:  # a damaged file may hold anything
        raise LitPWMError(
            f"The checkpoint {str(path)!r} cannot be described: a part of it is something else than its format says "
            f"({type(error).__name__}: {' '.join(str(error).split())[:200]}). The file is damaged; use a checkpoint as "
            f"a lit_pwm run wrote it."
        ) from error


def _described(raw: dict[str, Any], path: str | Path) -> dict[str, Any]:
    written = raw.get(DESCRIPTION_KEY)
    version = written.get("format") if isinstance(written, Mapping) else None
    description = described_in(raw, path)
    model, weights = description["world_model"], raw["state_dict"]
    tensors = {str(key): value for key, value in weights.items() if isinstance(value, torch.Tensor)}
    provenance = raw.get(PROVENANCE_KEY) or {}
    parts = ("encoder", "dynamics", "reward")
    file_bytes = absolute(path).stat().st_size
    return {
        "path": str(path),
        "bytes": file_bytes,
        "kind": description["kind"],
        "format": {"name": "native", "version": version},
        "sizes": _sizes(model, tensors),
        "components": plain_json(
            {name: model[name] for name in parts}
            | dict(model.get("heads") or {})
            | {name: description[name] for name in ("actor", "critic") if name in description}
        ),
        "tasks": {name: list(widths) for name, widths in model["tasks"].items()},
        "trained_tasks": list(description.get("trained_tasks", [])),
        "world_model_reference": plain_json(description.get(REFERENCE_KEY)),
        "step": plain_json(raw.get("global_step")),
        "epoch": plain_json(raw.get("epoch")),
        "config": plain_json(raw.get(SETTINGS_KEY) or raw.get("hyper_parameters") or {}),
        "metrics": _metrics(raw.get("callbacks") or {}),
        "data": plain_json(provenance.get("data") or {}),
        "versions": plain_json(
            {"lightning": raw.get("pytorch-lightning_version")} | (provenance.get("versions") or {})
        ),
        "bytes_by_part": _bytes_by_part(raw, tensors, file_bytes),
    }


def _sizes(model: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    parameters: dict[str, int] = {}
    for key, value in tensors.items():
        part = _part_of(key)
        if part.split(".")[0] in _NETWORKS and value.is_floating_point() and not key.endswith(_STATISTICS):
            parameters[part] = parameters.get(part, 0) + value.numel()
    widths = {name: model[name] for name in ("obs_dim", "action_dim", "latent_dim", "task_dim")}
    return widths | {"parameters": parameters, "total": sum(parameters.values()), "like": _size_like(model)}


def _size_like(model: Mapping[str, Any]) -> str | None:
    """TD-MPC2's name for a world model of these widths."""
    encoder = model["encoder"].get("init_args") or {}
    reward = model["reward"].get("init_args") or {}
    dynamics = model["dynamics"].get("init_args") or {}
    found = (
        model["latent_dim"], encoder.get("hidden_dim"), encoder.get("layers"), dynamics.get("hidden_dim"),
        reward.get("hidden_dim"), model["task_dim"],
    )  # fmt: skip
    for name, size in SIZES.items():
        if found == tuple(vars(size).values()):
            return name
    return None


def _metrics(callbacks: Mapping[str, Any]) -> dict[str, Any]:
    """What its callbacks know: the monitored numbers, last and best, and what training has cost so far."""
    found: dict[str, Any] = {}
    for name, state in callbacks.items():
        if not isinstance(state, Mapping):
            continue
        if isinstance(monitor := state.get("monitor"), str):
            found[monitor] = {"last": state.get("current_score"), "best": state.get("best_model_score")}
        if str(name).startswith("ComputeLedger"):
            found |= {key: state.get(key) for key in ("updates", "samples", "seconds", "flops")}
    return plain_json({key: value for key, value in found.items() if value is not None})


def _bytes_by_part(raw: Mapping[str, Any], tensors: Mapping[str, torch.Tensor], file_bytes: int) -> dict[str, int]:
    """Bytes of the tensors of each part, and of all else that the file consists of; together the file's own."""
    sizes: dict[str, int] = {}
    seen: set[int] = set()
    for key, value in tensors.items():
        _add(sizes, _part_of(key), value, seen)
    for key, value in raw.items():
        if key != "state_dict":
            for tensor in _tensors_in(value):
                _add(sizes, str(key), tensor, seen)
    known = sum(sizes.values())
    return sizes | {"everything else": max(0, file_bytes - known)}


def _add(sizes: dict[str, int], part: str, tensor: torch.Tensor, seen: set[int]) -> None:
    storage = tensor.untyped_storage()  # tensors may share it, and a small one may be shown large
    if storage.nbytes() and storage.data_ptr() not in seen:
        seen.add(storage.data_ptr())
        sizes[part] = sizes.get(part, 0) + storage.nbytes()


def _part_of(key: str) -> str:
    first, *rest = key.split(".")
    if first == "world_model" and rest:
        return f"world_model.{'.'.join(rest[:2]) if rest[0] == 'heads' else rest[0]}"
    return first


def _tensors_in(value: Any, depth: int = 0) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    if depth > _DEEPEST or not isinstance(value, (Mapping, list, tuple)):
        return []
    items = value.values() if isinstance(value, Mapping) else value
    return [tensor for item in items for tensor in _tensors_in(item, depth + 1)]


def plain_json(value: Any, depth: int = 0) -> Any:
    """A value as JSON can hold it: numbers that are not finite, and what is no plain value, as text."""
    if isinstance(value, torch.Tensor):
        value = value.item() if value.numel() == 1 else f"tensor {list(value.shape)} {value.dtype}"
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if depth > _DEEPEST:
        return "…"
    if isinstance(value, Mapping):
        return {str(key): plain_json(entry, depth + 1) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain_json(entry, depth + 1) for entry in value]
    return repr(value)[:200]
