"""The metrics of a run, as its CSVLogger wrote them."""

from __future__ import annotations

import csv
from pathlib import Path

from lit_pwm.errors import LitPWMError


def read_curves(path: Path) -> dict[str, list[tuple[int, float]]]:
    """The curves in a CSVLogger's file: metric → list of (update, value).

    Raises:
        LitPWMError: it is no such file, or has no value.
    """
    curves: dict[str, list[tuple[int, float]]] = {}
    try:
        if not path.is_file():
            raise ValueError("it is no file")
        with path.open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file, strict=True):
                if None in row or None in row.values():
                    raise ValueError("a row has not as many entries as the header")
                for key, value in row.items():
                    if key not in ("step", "epoch") and value:
                        curves.setdefault(key, []).append((int(row["step"]), float(value)))
        if not curves:
            raise ValueError("it holds no values")
    except (OSError, ValueError, KeyError, csv.Error) as error:
        raise LitPWMError(
            f"The metrics of a run cannot be read from {str(path)!r}: {' '.join(str(error).split())[:200]}. Let the "
            f"run log with the CSV logger (trainer.log_every_n_steps at most its number of updates), and run it again."
        ) from error
    return curves
