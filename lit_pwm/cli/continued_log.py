"""The log of a run, which stays whole, and goes on where the run goes on in its own folder."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter

from lit_pwm.errors import LitPWMError
from lit_pwm.runtime.atomic import replacing


class _Writer(ExperimentWriter):
    """Replaces its file where it needs another header; Lightning's empties it first, and a kill then loses it."""

    def save(self) -> None:
        """Write what was logged."""
        known = [*self.metrics_keys]
        try:
            super().save()
        except BaseException:
            self.metrics_keys = known  # the file may have these alone
            raise

    def _rewrite_with_new_header(self, fieldnames: list[str]) -> None:
        file = Path(self.metrics_file_path)
        _write(file, fieldnames, _read(file)[1])


class _ContinuingWriter(_Writer):
    """Leaves the file that it finds."""

    def _check_log_dir_exists(self) -> None:
        pass


class WholeCSVLogger(CSVLogger):
    """A CSVLogger whose file is whole at any moment, but for a last line in flight."""

    @property
    @rank_zero_experiment
    def experiment(self) -> object:
        """The writer."""
        if self._experiment is None:
            self._fs.makedirs(self.root_dir, exist_ok=True)
            self._experiment = self._writer()
        return self._experiment

    def _writer(self) -> _Writer:
        return _Writer(self.log_dir)


class ContinuedCSVLogger(WholeCSVLogger):
    """One that goes on with the file that it finds, without the rows beyond the update resumed from.

    Args:
        root: the run's folder.
        version: the number of its version folder.
        updates: updates that the resumed checkpoint has seen; rows of later ones are dropped.
    """

    def __init__(self, root: str, version: int, updates: int) -> None:
        super().__init__(root, version=version)
        self._updates = updates

    def _writer(self) -> _Writer:
        writer = _ContinuingWriter(self.log_dir)
        file = Path(writer.metrics_file_path)
        header, rows = _read(file)
        rows = [row for row in rows if _step(row) < self._updates]
        if rows:
            _write(file, header, rows)
            writer.metrics_keys = header
        else:
            file.unlink(missing_ok=True)
        return writer


def _read(file: Path) -> tuple[list[str], list[dict[str, str]]]:
    """The header and rows of a log, but for a last line that a killed process, or a full disk, has cut short."""
    if not file.is_file():
        return [], []
    with file.open(newline="", encoding="utf-8", errors="replace") as text:
        lines = [line for line in text if line.endswith("\n")]
    reader = csv.DictReader(lines)
    try:
        rows = [row for row in reader if None not in row and None not in row.values()]
    except csv.Error as error:
        raise LitPWMError(
            f"The log {str(file)!r} of the run that goes on is no CSV file ({error}). Move it away, and another begins."
        ) from error
    return list(reader.fieldnames or []), rows


def _write(file: Path, header: Sequence[str], rows: Sequence[Mapping[str, str]]) -> None:
    with replacing(file, "The log of the run") as beside, beside.open("w", newline="", encoding="utf-8") as out:
        writer = csv.DictWriter(out, fieldnames=header)
        writer.writeheader()
        writer.writerows(rows)


def _step(row: Mapping[str, str]) -> float:
    try:
        return float(row.get("step") or "nan")
    except ValueError:
        return float("inf")  # a line that something else has written
