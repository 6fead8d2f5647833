"""In what two runs' last checkpoints and logs differ: nothing may, but clocks and the places of files."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

_OF_PLACES = {"lit_pwm_settings", "lit_pwm_began_with", "dirpath", "last_model_path", "kth_best_model_path"}
_OF_CLOCKS = {"ComputeLedger"}
_BY_PATH = {"best_k_models", "best_model_path"}


def last_checkpoint(root: Path) -> dict[str, Any]:
    """The content of the last checkpoint of a run, of whatever number of version folders."""
    return _last(root)[0]


def _last(root: Path) -> tuple[dict[str, Any], Path]:
    found = [(torch.load(path, weights_only=True, map_location="cpu"), path) for path in root.rglob("last.ckpt")]
    return max(found, key=lambda one: one[0]["global_step"])


def logged_rows(root: Path) -> list[dict[str, str]]:
    """What a run logged, without what it measured by a clock; not what one did that never came to a checkpoint."""
    rows = []
    for file in sorted(_last(root)[1].parent.parent.glob("metrics.csv")):
        with file.open() as lines:
            for row in csv.DictReader(lines):
                kept = {name: value for name, value in row.items() if value and not name.startswith("compute/")}
                rows += [kept] if kept.keys() - {"step", "epoch"} else []
    return rows


def differences(one: Path, other: Path) -> list[str]:
    """What differs between two runs, to the bit: weights, moments, random states, counters, rates and logged rows.

    Args:
        one: folder of a run.
        other: folder of another of the same command.

    Returns:
        Places in the checkpoints, and rows; empty if they are the same run.
    """
    found = list(_between(last_checkpoint(one), last_checkpoint(other), ""))
    mine, theirs = logged_rows(one), logged_rows(other)
    if len(mine) != len(theirs):
        found.append(f"{len(mine)} and {len(theirs)} logged rows")
    found += [f"logged: {a} and {b}" for a, b in zip(mine, theirs, strict=False) if a != b][:3]
    return found


def _between(one: Any, other: Any, place: str) -> Iterator[str]:
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        same = one.dtype == other.dtype and one.shape == other.shape
        if not (same and torch.equal(one.contiguous().view(torch.uint8), other.contiguous().view(torch.uint8))
                if one.ndim else same and torch.equal(one, other)):  # fmt: skip
            yield place
    elif isinstance(one, Mapping) and isinstance(other, Mapping):
        if place.endswith(tuple(_BY_PATH)):
            one, other = ({Path(path).name: score for path, score in paths.items()} for paths in (one, other))
        for key in one.keys() | other.keys():
            if key in _OF_PLACES | _OF_CLOCKS:
                continue
            if key not in one or key not in other:
                yield f"{place}/{key} is in one alone"
            else:
                yield from _between(one[key], other[key], f"{place}/{key}")
    elif isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        if len(one) != len(other):
            yield f"{place}: {len(one)} and {len(other)} entries"
        for number, (mine, theirs) in enumerate(zip(one, other, strict=False)):
            yield from _between(mine, theirs, f"{place}/{number}")
    elif place.endswith("best_model_path"):
        if Path(one).name != Path(other).name:
            yield f"{place}: {one} and {other}"
    elif one != other and not (isinstance(one, float) and isinstance(other, float) and math.isnan(one + other)):
        yield f"{place}: {one!r:.60} and {other!r:.60}"
