"""The metrics of a run, as its CSVLogger wrote them."""

from __future__ import annotations

import csv
from pathlib import Path


def read_curves(path: Path) -> dict[str, list[tuple[int, float]]]:
    """The curves in a CSVLogger's file: metric → list of (update, value)."""
    curves: dict[str, list[tuple[int, float]]] = {}
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            for key, value in row.items():
                if key not in ("step", "epoch") and value:
                    curves.setdefault(key, []).append((int(row["step"]), float(value)))
    return curves
