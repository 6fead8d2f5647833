"""The types of JSON records name what committed records hold: every field that is there, and none that is not."""

from __future__ import annotations

import json
from typing import NotRequired, get_args, get_origin, get_type_hints, is_typeddict

import pytest
from support import ROOT

from lit_pwm.evaluation.model_gap import GapRecord
from lit_pwm.experiments.record_types import SweepRecord
from lit_pwm.measures.compute_record import ComputeRecord

COMMITTED = sorted((ROOT / "benchmarks" / "results").glob("factorial*/*.record.json"))
LATER = {"GapRecord": GapRecord, "ComputeRecord": ComputeRecord}
MORE = {"ReturnsRecord", "ReturnsOfTask"}
"""Types that name only what is needed of a file that has more."""


def differences(value, hint, place="record"):
    """Where a value is not of its type, in words."""
    if is_typeddict(hint):
        fields = get_type_hints(hint, localns=LATER, include_extras=True)
        needed = {name for name, kind in fields.items() if get_origin(kind) is not NotRequired}
        wrong = [f"{place} lacks {name}" for name in needed - value.keys()]
        if hint.__name__ not in MORE:
            wrong += [f"{place} has {name}" for name in value.keys() - fields.keys()]
        kinds = {name: get_args(kind)[0] if get_origin(kind) is NotRequired else kind for name, kind in fields.items()}
        return wrong + [w for n, k in kinds.items() if n in value for w in differences(value[n], k, f"{place}.{n}")]
    if get_origin(hint) is dict:
        return [w for name, inner in value.items() for w in differences(inner, get_args(hint)[1], f"{place}.{name}")]
    if get_origin(hint) is list:
        return [w for inner in value for w in differences(inner, get_args(hint)[0], f"{place}[]")]
    kinds = [kind for kind in get_args(hint) or (hint,) if kind is not type(None)]
    if value is None:
        return [] if type(None) in get_args(hint) or hint is None else [f"{place} is null"]
    if any(is_typeddict(kind) for kind in kinds):
        return differences(value, kinds[0], place)
    plain = tuple({float: (int, float)}.get(get_origin(kind) or kind, get_origin(kind) or kind) for kind in kinds)
    return [] if isinstance(value, plain) else [f"{place} is {value!r}"]


@pytest.mark.parametrize("path", COMMITTED[::29], ids=lambda path: path.name)
def test_committed_records_are_of_their_type(path):
    record = json.loads(path.read_text())
    assert differences(record, SweepRecord) == []
    record["cells"][next(iter(record["cells"]))].pop("command")
    record["policy"]["compute"]["flopz"] = record["seed"] = 1
    found = differences(record, SweepRecord)
    assert len(found) == 3, found
