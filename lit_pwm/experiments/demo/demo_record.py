"""The record of a demo: plain JSON, enough to remake its report."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import cast

from lit_pwm.errors import LitPWMError
from lit_pwm.experiments.demo.summary import TaskSummary
from lit_pwm.experiments.record_fields import (
    alike_long,
    anything,
    check_record,
    each,
    fields,
    finite,
    list_of,
    maybe,
    number,
    pair,
    read_json,
    text,
)
from lit_pwm.experiments.record_types import DemoRecord, Points
from lit_pwm.provenance import describe_machine, versions
from lit_pwm.runtime.atomic import replacing

RECORD = "record.json"
FORMAT_VERSION = 1

_REMEDY = "Name the folder of a run that `lit-pwm demo` finished, or run it again."
_POINTS = list_of(pair(number, maybe(number)))
_DRAWN = ("truth", "prediction", "copy_last")
_SERIES = alike_long(fields({"name": text, **dict.fromkeys(_DRAWN, list_of(number))}), _DRAWN)
_GAP = fields({"imagined_return": number, "real_return": number, "steps": number})
_BIN = fields(dict.fromkeys(("count", "predicted", "observed"), number))
_RATES = ("transitions", "ends", "brier", "base_rate", "brier_base_rate")
_CONTINUATION = fields({**dict.fromkeys(_RATES, number), "bins": list_of(_BIN, least=1)})
_TASK = fields(
    {
        "task": text,
        "returns": fields(dict.fromkeys(("random", "data", "best", "last"), list_of(number, least=1))),
        "video": maybe(text),
        "video_return": number,
        "notice": maybe(text),
        "open_loop": fields({"series": list_of(_SERIES)}),
    },
    {"model_gap": maybe(_GAP), "continuation": maybe(_CONTINUATION)},
)
_DEMO = fields(
    {
        "seed": number,
        "command": text,
        "plan": each(anything),
        "seconds": each(number),
        "versions": each(anything),
        "machine": each(anything),
        "tasks": list_of(_TASK, least=1),
        "world_model_curves": each(_POINTS),
        "policy_curves": each(each(_POINTS)),
    }
)


def write_record(
    folder: Path,
    seed: int,
    started: str,
    plan: Mapping[str, object],
    seconds: Mapping[str, float],
    summaries: Sequence[TaskSummary],
    world_model_curves: Mapping[str, Points],
    policy_curves: Mapping[str, Mapping[str, Points]],
) -> Path:
    """Write a run's record; it appears when it is complete."""
    record = {
        "kind": "demo",
        "format": FORMAT_VERSION,
        "seed": seed,
        "started": started,
        "command": " ".join(["lit-pwm", *sys.argv[1:]]),
        "plan": plan,
        "seconds": seconds,
        "versions": versions(),
        "machine": describe_machine(),
        "tasks": [asdict(summary) for summary in summaries],
        "world_model_curves": world_model_curves,
        "policy_curves": policy_curves,
    }
    path = folder / RECORD
    with replacing(path, "The run's record") as beside:
        beside.write_text(json.dumps(finite(record), indent=1, allow_nan=False), encoding="utf-8")
    return path


def read_record(folder: Path) -> DemoRecord:
    """The record of a run.

    Raises:
        LitPWMError: it is not there, is damaged, or of another format.
    """
    path = folder / RECORD
    record = read_json(path, "the record of a finished run", _REMEDY)
    kind, version = record.get("kind"), record.get("format")
    if (kind, version) != ("demo", FORMAT_VERSION):
        raise LitPWMError(
            f"{str(path)!r} is the record of a {kind!r} in format {version!r}, and this version of lit_pwm reports "
            f"'demo' in format {FORMAT_VERSION}. Make the report with the version that wrote it."
        )
    check_record(path, record, _DEMO, _REMEDY)
    for curves in (record["world_model_curves"], *record["policy_curves"].values()):
        for name, points in curves.items():
            curves[name] = [point for point in points if point[1] is not None]
    return cast("DemoRecord", record)
