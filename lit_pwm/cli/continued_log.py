"""The log of a run that goes on in its own folder."""

from __future__ import annotations

import csv
import warnings
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter

from lit_pwm.runtime.atomic import replacing


class ContinuedCSVLogger(CSVLogger):
    """A CSVLogger that goes on with the file that it finds, without the rows beyond the update resumed from.

    Args:
        root: the run's folder.
        version: the number of its version folder.
        updates: updates that the resumed checkpoint has seen; rows of later ones are dropped.
    """

    def __init__(self, root: str, version: int, updates: int) -> None:
        super().__init__(root, version=version)
        self._updates = updates

    @property
    def experiment(self) -> Any:
        """The writer, which has the kept rows in its file."""
        if self._experiment is None:
            file = Path(self.log_dir) / ExperimentWriter.NAME_METRICS_FILE
            header, rows = _rows_before(file, self._updates)
            with warnings.catch_warnings(action="ignore"):  # that it deletes the file
                experiment: Any = super().experiment
            if isinstance(experiment, ExperimentWriter) and rows:
                with replacing(file, "The log of the run") as beside, beside.open("w", newline="") as out:
                    writer = csv.DictWriter(out, fieldnames=header)
                    writer.writeheader()
                    writer.writerows(rows)
                experiment.metrics_keys = header
        return super().experiment


def _rows_before(file: Path, updates: int) -> tuple[list[str], list[dict[str, str]]]:
    if not file.is_file():
        return [], []
    with file.open(newline="") as lines:
        reader = csv.DictReader(lines)
        rows = [row for row in reader if _step(row) < updates]
        return list(reader.fieldnames or []), rows


def _step(row: dict[str, str]) -> float:
    try:
        return float(row.get("step") or "nan")
    except ValueError:
        return float("inf")  # a line that a killed process has left unfinished
