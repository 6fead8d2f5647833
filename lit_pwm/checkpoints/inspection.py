"""What a checkpoint is and holds, as plain values: nothing of it is built, run or trusted."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from lit_pwm.checkpoints.descriptions import described_in
from lit_pwm.checkpoints.formats.base import FOREIGN_KEY, Format
from lit_pwm.checkpoints.formats.format_registry import read_raw
from lit_pwm.checkpoints.formats.own_file import OwnFile
from lit_pwm.checkpoints.migration import DESCRIPTION_KEY, PROVENANCE_KEY, SETTINGS_KEY
from lit_pwm.checkpoints.references import REFERENCE_KEY
from lit_pwm.errors import LitPWMError
from lit_pwm.models.sizes import SIZES
from lit_pwm.runtime.remote_files import size_of

_NETWORKS = ("world_model", "actor", "critic")
_STATISTICS = (".obs_mean", ".obs_std", "_variance.value", ".directions", ".action_mask")
"""Ends of the keys of what networks hold beside their parameters."""
_WEIGHTS = ("state_dict", "model", "world_model")
"""Where files of one format or another hold weights."""
_FOREIGN_METRICS = ("best_reward", "best_policy_loss", "mean_horizon")
_DEEPEST = 30
"""Levels of a config that are shown; a file may nest without end."""


def inspect_checkpoint(path: str | Path) -> dict[str, Any]:
    """What a checkpoint is and holds, as JSON can hold it.

    Args:
        path: the checkpoint.

    Returns:
        `path`, `bytes`, `kind`, `format` (name and version), `sizes` (widths, parameters by part, TD-MPC2's name for
        the size where it has one), `components` (class paths and options), `tasks` (name → widths), `trained_tasks`,
        `terminating_tasks` (in which its continuation head knows of ends),
        `world_model_reference` (fingerprint and file of a world model that is left out), `step`, `epoch`, `config`,
        `metrics`, `data` (fingerprint, tasks), `versions`, `bytes_by_part`; of other formats `carried`, `statistics`
        and the number of `unnamed_tasks`. What a file does not say is None or empty.

    Raises:
        LitPWMError: the file is missing, unreadable, no checkpoint, or of a kind that is not known.
    """
    raw, form = read_raw(path)
    try:
        if isinstance(form, OwnFile):
            return _described(raw, raw, path)
        native, named = _read_unnamed(form, raw, path)
        return _described(native, raw, path) | _of_another_format(form, native, named)
    except LitPWMError:
        raise
    except Exception as error:  # a damaged file may hold anything
        raise LitPWMError(
            f"The checkpoint {str(path)!r} cannot be described: a part of it is something else than its format says "
            f"({type(error).__name__}: {' '.join(str(error).split())[:200]}). The file is damaged; use a checkpoint as "
            f"a lit_pwm run wrote it."
        ) from error


def _read_unnamed(form: Format, raw: Mapping[Any, Any], path: str | Path) -> tuple[dict[str, Any], bool]:
    """A file of another format as a native one, and whether its tasks have names; if not, they are numbered."""
    try:
        return form.read(raw, path, None), True
    except LitPWMError:
        weights = next((raw[name] for name in _WEIGHTS if isinstance(raw.get(name), Mapping)), raw)
        embedding = weights.get("_task_emb.weight")
        rows = len(embedding) if isinstance(embedding, torch.Tensor) and embedding.ndim else 1
        return form.read(raw, path, [f"task {number}" for number in range(rows)]), False


def _of_another_format(form: Format, native: Mapping[str, Any], named: bool) -> dict[str, Any]:
    """What is said otherwise of a file that another project wrote."""
    layout = native[FOREIGN_KEY].get("layout") or {}
    values = layout.get("values") or {}
    found: dict[str, Any] = {
        "format": {"name": form.name, "version": None},
        "step": plain_json(values.get("iter", values.get("iter_count"))),
        "config": plain_json(values.get("cfg") or {}),
        "metrics": plain_json({name: values[name] for name in _FOREIGN_METRICS if name in values}),
        "carried": sorted({str(key).partition(".")[0] for key in native[FOREIGN_KEY].get("carried") or ()}),
        "statistics": [name for name, value in (layout.get("statistics") or {}).items() if value is not None],
    }
    return (
        found if named else found | {"tasks": {}, "unnamed_tasks": len(native[DESCRIPTION_KEY]["world_model"]["tasks"])}
    )


def _described(native: dict[str, Any], raw: Mapping[str, Any], path: str | Path) -> dict[str, Any]:
    """What a native checkpoint is and holds; `raw` is the file's own content, which it may have been read from."""
    written = native.get(DESCRIPTION_KEY)
    version = written.get("format") if isinstance(written, Mapping) else None
    description = described_in(native, path)
    model, weights = description["world_model"], native["state_dict"]
    tensors = {str(key): value for key, value in weights.items() if isinstance(value, torch.Tensor)}
    provenance = native.get(PROVENANCE_KEY) or {}
    parts = ("encoder", "dynamics", "reward")
    file_bytes = size_of(path)
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
        "terminating_tasks": [
            name
            for name, ends in zip(model["tasks"], tensors.get(_TERMINATES, torch.zeros(0)).tolist(), strict=False)
            if ends
        ],
        "trained_tasks": list(description.get("trained_tasks", [])),
        "world_model_reference": plain_json(description.get(REFERENCE_KEY)),
        "step": plain_json(native.get("global_step")),
        "epoch": plain_json(native.get("epoch")),
        "config": plain_json(native.get(SETTINGS_KEY) or native.get("hyper_parameters") or {}),
        "metrics": _metrics(native.get("callbacks") or {}),
        "data": plain_json(provenance.get("data") or {}),
        "versions": plain_json(
            {"lightning": native.get("pytorch-lightning_version")} | (provenance.get("versions") or {})
        ),
        "bytes_by_part": _bytes_by_part(raw, file_bytes),
    }


_TERMINATES = "world_model.heads.continuation.terminates"


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


def _bytes_by_part(raw: Mapping[str, Any], file_bytes: int) -> dict[str, int]:
    """Bytes of the tensors of each part, and of all else that the file consists of; together the file's own."""
    sizes: dict[str, int] = {}
    seen: set[int] = set()
    for name in (name for name in _WEIGHTS if isinstance(raw.get(name), Mapping)):
        for key, value in raw[name].items():
            for tensor in _tensors_in(value):
                _add(sizes, _part_of(str(key)) if name == "state_dict" else str(key).partition(".")[0], tensor, seen)
    for name, value in raw.items():
        for tensor in _tensors_in(value):
            _add(sizes, str(name).partition(".")[0], tensor, seen)
    return sizes | {"everything else": max(0, file_bytes - sum(sizes.values()))}


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
