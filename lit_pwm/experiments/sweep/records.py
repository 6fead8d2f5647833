"""A sweep's results, condensed: one small JSON file for each evaluated cell, enough to remake tables and figures."""

from __future__ import annotations

import contextlib
import json
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from lit_pwm.errors import LitPWMError
from lit_pwm.experiments.metrics import read_curves
from lit_pwm.experiments.record_fields import (
    anything,
    check_record,
    each,
    fields,
    finite,
    list_of,
    maybe,
    number,
    read_json,
    text,
)
from lit_pwm.experiments.record_types import ReturnsRecord, SweepRecord, TrainedRecord
from lit_pwm.experiments.run_identity import STRATA, distinct_cells
from lit_pwm.experiments.sweep.cells import Cell, label_of
from lit_pwm.experiments.sweep.plan import RecordPlan, Sweep
from lit_pwm.experiments.sweep.quantities import PER_UPDATE
from lit_pwm.experiments.sweep.state import CellState, read_state
from lit_pwm.runtime.atomic import replacing

if TYPE_CHECKING:
    from lit_pwm.measures.compute_record import ComputeRecord

KIND = "sweep"
FORMAT_VERSION = 1
SUFFIX = ".record.json"
RETURNS = "returns.json"
COMPUTE = "compute.json"
CURVE_POINTS = 60
CURVE_COLUMNS = ("update", "return", "flops", "seconds")
_COSTS = {"flops": "compute/flops", "seconds": "compute/seconds"}


def write_records(sweep: Sweep, cells: Mapping[str, Cell], out: Path, copies: Path | None = None) -> list[Path]:
    """Write a record of each evaluated combination of labels whose cells are all finished.

    Records of combinations that are among the cells but not finished are removed from the sweep's folder.

    Args:
        sweep: the whole sweep, whose order of labels the records keep.
        cells: its cells, or those of a part of it.
        out: the sweep's folder; records go to `records/` in it.
        copies: another folder that gets the same files.

    Returns:
        The paths of the records.

    Raises:
        LitPWMError: a finished cell did not leave what it should, or a file cannot be written.
    """
    if sweep.record is None:
        return []
    first = next(iter(sweep.record.returns.values()))
    evaluated = [cell.labels for cell in cells.values() if cell.stage == first]
    written = (write_record(sweep, cells, labels, out, copies) for labels in evaluated)
    return [path for path in written if path is not None]


def write_record(
    sweep: Sweep, cells: Mapping[str, Cell], labels: Mapping[str, str], out: Path, copies: Path | None = None
) -> Path | None:
    """Write the record of one combination of labels, as `write_records` does; None if it is not finished."""
    if sweep.record is None:
        return None
    path = out / "records" / f"{label_of(labels)}{SUFFIX}"
    record = _record(sweep, sweep.record, labels, cells, out)
    if record is None:
        path.unlink(missing_ok=True)
        return None
    written = json.dumps(finite(record), indent=1, allow_nan=False) + "\n"
    for place in (path, *([copies / path.name] if copies else [])):
        with replacing(place, "A sweep's record") as beside:
            beside.write_text(written, encoding="utf-8")
    return path


def check_places(sweep: Sweep, cells: Mapping[str, Cell], out: Path, copies: Path | None = None) -> None:
    """Make sure that no record of another sweep lies where one of this sweep would be written or removed.

    Raises:
        LitPWMError: one does.
    """
    if sweep.record is None:
        return
    first = next(iter(sweep.record.returns.values()))
    names = [f"{label_of(cell.labels)}{SUFFIX}" for cell in cells.values() if cell.stage == first]
    places = [("--out", out / "records"), *([("--records", copies)] if copies else [])]
    for option, path in ((option, folder / name) for option, folder in places for name in names):
        theirs = _sweep_of(path)
        if theirs is not None and theirs != sweep.name:
            raise LitPWMError(
                f"The file {str(path)!r} is a record of the sweep {str(theirs)[:80]!r}, and would be replaced by one "
                f"of {sweep.name!r}. Move it away, or give another folder with {option}."
            )


def _sweep_of(path: Path) -> Any:
    """The name of the sweep whose record a file is; None where there is none, or a damaged one, which is made anew."""
    with contextlib.suppress(LitPWMError):
        return read_json(path, "the record of a sweep's cell", _REMEDY).get("sweep")
    return None


def read_records(paths: Sequence[Path]) -> list[SweepRecord]:
    """Read records; each run counts once.

    Raises:
        LitPWMError: a file is damaged, or of another kind or format, or the records do not belong together.
    """
    return [record for _, record in distinct_cells([(path, _read(path)) for path in paths])]


_REMEDY = "Run the sweep again, which writes its records anew, or remove the file."
_COMPUTE = fields({}, {"parameters": each(maybe(number)), **dict.fromkeys(PER_UPDATE.values(), maybe(number))})
_TRAINED = fields(
    {
        "final": each(maybe(number)),
        "curve": fields({"columns": list_of(text), "rows": list_of(list_of(maybe(number)))}),
    },
    {"compute": maybe(_COMPUTE)},
)
_EVALUATED = fields({"tasks": each(fields({"returns": list_of(number, least=1)}))})
_CELL = fields({"command": text, "configs": each(text), "seconds": number})
_SWEEP = fields(
    {
        "sweep": text,
        "labels": each(text),
        "axes": each(list_of(text)),
        "returns": each(_EVALUATED, least=1),
        "cells": each(_CELL),
        "versions": each(anything),
    },
    {"world_model": _TRAINED, "policy": _TRAINED, "values": each(text), "discovery": each(number)},
)


def _read(path: Path) -> SweepRecord:
    record = read_json(path, "the record of a sweep's cell", _REMEDY)
    kind, version = record.get("kind"), record.get("format")
    if (kind, version) != (KIND, FORMAT_VERSION):
        raise LitPWMError(
            f"{str(path)!r} is a record of kind {kind!r} in format {version!r}, and this version of lit_pwm reads "
            f"{KIND!r} in format {FORMAT_VERSION}. Run the sweep again, which writes its records anew."
        )
    check_record(path, record, _SWEEP, _REMEDY)
    compared = [axis for axis in record["labels"] if axis not in STRATA]
    strange = [axis for axis in compared if record["labels"][axis] not in record["axes"].get(axis, ())]
    curves = (record[role]["curve"] for role in ("world_model", "policy") if role in record)
    if (
        strange
        or set(record["labels"]) != set(record["axes"])
        or any(len(row) != len(curve["columns"]) for curve in curves for row in curve["rows"])
    ):
        raise LitPWMError(f"The record {str(path)!r} has labels, axes or curves that do not fit together. {_REMEDY}")
    return cast("SweepRecord", record)


def _record(
    sweep: Sweep, plan: RecordPlan, labels: Mapping[str, str], cells: Mapping[str, Cell], out: Path
) -> SweepRecord | None:
    """A record, or None where one of its cells is not finished."""
    ran: dict[str, tuple[Cell, CellState]] = {}
    pending = [*plan.returns.values(), *plan.runs.values()]
    keys = [_key(sweep, stage, labels) for stage in pending]
    while keys:
        cell = cells[keys.pop()]
        state = read_state(cell.folder(out))
        if state is None or state.status != "finished" or state.fingerprint != cell.fingerprint:
            return None
        ran[cell.stage] = cell, state
        keys += [need for need in cell.needs if cells[need].stage not in ran]
    order = [stage for stage in sweep.stages if stage in ran]
    record: dict[str, object] = {
        "kind": KIND,
        "format": FORMAT_VERSION,
        "sweep": sweep.name,
        "labels": dict(labels),
        "values": {axis: sweep.axes[axis][label] for axis, label in labels.items()},
        "axes": {axis: list(sweep.axes[axis]) for axis in labels},
        "returns": {label: _returns(ran[stage][0].folder(out)) for label, stage in plan.returns.items()},
        **({"discovery": dict(plan.discovery)} if plan.discovery else {}),
        **{role: _run(ran[stage][0].folder(out)) for role, stage in plan.runs.items()},
        "cells": {
            stage: {
                "command": " ".join(["lit-pwm", *ran[stage][1].arguments]),  # with $OUT for the sweep's folder
                "configs": ran[stage][1].configs,
                "seconds": ran[stage][1].seconds,
                "started": ran[stage][1].started,
            }
            for stage in order
        },
        "versions": ran[order[-1]][1].versions,
    }
    return cast("SweepRecord", record)


def _key(sweep: Sweep, stage: str, labels: Mapping[str, str]) -> str:
    own = {axis: label for axis, label in labels.items() if axis in sweep.stages[stage].over}
    return f"{stage}/{label_of(own)}"


def _returns(folder: Path) -> ReturnsRecord:
    """What `lit-pwm evaluate` wrote, but for the checkpoint's path and the versions, which the record has."""
    found = _json(folder / RETURNS, "evaluation")
    kept = {key: value for key, value in found.items() if key not in ("checkpoint", "versions")}
    return cast("ReturnsRecord", kept)


def _run(folder: Path) -> TrainedRecord:
    """A training run: its updates, the last value of each metric, the curve of returns, and the compute ledger."""
    curves = read_curves(_single(folder, "metrics.csv"))
    ledgers = sorted(folder.rglob(COMPUTE))
    return {
        # Metrics are logged under the number of the update before.
        "updates": 1 + max(step for points in curves.values() for step, _ in points),
        "final": {metric: points[-1][1] for metric, points in sorted(curves.items())},
        "curve": {"columns": list(CURVE_COLUMNS), "rows": _curve(curves)},
        "compute": cast("ComputeRecord", _json(ledgers[0], "compute ledger")) if ledgers else None,
    }


def _curve(curves: Mapping[str, Sequence[tuple[int, float]]]) -> list[list[float | None]]:
    points = curves.get("eval/return", [])
    if len(points) > CURVE_POINTS:
        chosen = [round(i * (len(points) - 1) / (CURVE_POINTS - 1)) for i in range(CURVE_POINTS)]
        points = [points[i] for i in chosen]
    costs = [[(step + 1, cost) for step, cost in curves.get(_COSTS[name], [])] for name in CURVE_COLUMNS[2:]]
    rows = []
    for place, (step, value) in enumerate(points):
        update = step + 1 if place or step else 0  # the first evaluation comes before the first update
        rows.append([update, value, *(_cost_at(cost, update) for cost in costs)])
    return rows


def _cost_at(points: Sequence[tuple[int, float]], update: int) -> float | None:
    """A cumulative cost at an update, between its logged points on a straight line; None if it was not logged."""
    if not points:
        return None
    known = [(0, 0.0), *points]
    after = min(bisect_right([step for step, _ in known], update), len(known) - 1)
    (u0, c0), (u1, c1) = known[after - 1], known[after]
    return c1 if u1 == u0 else c0 + (c1 - c0) * (update - u0) / (u1 - u0)


def _single(folder: Path, name: str) -> Path:
    found = sorted(folder.rglob(name))
    if len(found) != 1:
        raise LitPWMError(
            f"The finished cell {str(folder)!r} should hold one {name} for the sweep's record, and holds {len(found)}. "
            f"Let the stage's command write its run under {{folder}} (--trainer.default_root_dir) with the CSV logger."
        )
    return found[0]


def _json(path: Path, what: str) -> dict[str, Any]:
    try:
        if not path.is_file():
            raise ValueError("it is no file")
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise LitPWMError(
            f"The {what} {str(path)!r}, which belongs into the sweep's record, cannot be read ({error}). Let the "
            f"stage's command write it under {{folder}}, and run the sweep again after removing that cell's folder."
        ) from error
