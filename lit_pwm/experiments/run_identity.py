"""Which records are of the same run, which of runs that belong together, and which of neither.

A run counts once, wherever copies of its record lie. Runs belong together if they differ in nothing but their labels or
seeds; any others are refused, because their mean would be that of no experiment.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from lit_pwm.errors import LitPWMError
from lit_pwm.experiments.own_folders import UNFINISHED
from lit_pwm.experiments.record_types import DemoRecord, SweepRecord

NamedCell = tuple[Path, SweepRecord]
"""A record of a sweep's cell and its file."""
NamedDemo = tuple[Path, DemoRecord]
"""A demo's record and its folder."""

STRATA = ("task", "seed")
"""Axes whose labels are what commands are given; those of others may stand for something else, such as a config."""


def records_below(folder: Path) -> list[Path]:
    """The files of records in a folder and the folders in it, but for hidden ones and those of unfinished runs."""
    found = []
    for path in sorted(folder.rglob("*record.json")) if folder.is_dir() else ():
        above = path.relative_to(folder).parts[:-1]
        if not any(part.startswith(".") or part.endswith(UNFINISHED) for part in above) and (
            path.name == "record.json" or path.name.endswith(".record.json")
        ):
            found.append(path)
    return found


def distinct_files(paths: Iterable[Path]) -> list[Path]:
    """The files, each once, however it is reached."""
    found: dict[Path, Path] = {}
    for path in paths:
        found.setdefault(Path(os.path.realpath(path)), path)  # which, unlike `resolve`, takes loops of links too
    return list(found.values())


def distinct_demos(named: Sequence[NamedDemo]) -> list[NamedDemo]:
    """The demo's runs, each once.

    Raises:
        LitPWMError: two of one seed have other results, or two have other plans.
    """
    kept: dict[int, NamedDemo] = {}
    for path, record in named:
        first_path, first = next(iter(kept.values()), (path, record))
        ours, theirs = first["plan"], record["plan"]
        for key in {**ours, **theirs}:
            if ours.get(key) != theirs.get(key):
                shown = [repr(plan.get(key))[:120] for plan in (ours, theirs)]
                raise _refusal(first_path, path, f"were made by other plans: {key} {shown[0]} and {shown[1]}")
        seed = record["seed"]
        if seed in kept and _returns_of_demo(kept[seed][1]) != _returns_of_demo(record):
            raise _refusal(kept[seed][0], path, f"are two runs of seed {seed} with other results")
        kept.setdefault(seed, (path, record))
    return list(kept.values())


def distinct_cells(named: Sequence[NamedCell]) -> list[NamedCell]:
    """A sweep's records, each cell and seed once.

    Raises:
        LitPWMError: they are of other sweeps, or two were made by commands or configs that differ in more than their
            labels, or two of one cell and seed have other results.
    """
    kept: dict[tuple[tuple[str, str], ...], NamedCell] = {}
    for path, record in named:
        key = tuple(sorted(record["labels"].items()))
        if key not in kept:
            kept[key] = path, record
        else:
            other_path, other = kept[key]
            _same_work((other_path, other), (path, record))
            if other["returns"] != record["returns"]:
                raise _refusal(other_path, path, "are two runs of one cell and seed with other results")
    _belong_together(list(kept.values()))
    return list(kept.values())


def _belong_together(named: Sequence[NamedCell]) -> None:
    """Compare each record with the first, and with the first of its cell."""
    cells: dict[tuple[tuple[str, str], ...], NamedCell] = {}
    for one in named:
        cell = tuple(sorted((axis, label) for axis, label in one[1]["labels"].items() if axis not in STRATA))
        _same_work(named[0], one)
        _same_work(cells.setdefault(cell, one), one)


def _same_work(ours: NamedCell, theirs: NamedCell) -> None:
    (path, a), (other, b) = ours, theirs
    if (a["sweep"], set(a["axes"])) != (b["sweep"], set(b["axes"])):
        raise _refusal(
            path, other,
            f"are of different sweeps: {a['sweep']!r} over {list(a['axes'])} and {b['sweep']!r} over {list(b['axes'])}",
        )  # fmt: skip
    if a is b:
        return
    ours_mean, theirs_mean = a.get("values", {}), b.get("values", {})
    for axis, label in a["labels"].items():
        mine, other_value = ours_mean.get(axis), theirs_mean.get(axis)
        if b["labels"].get(axis) == label and None not in (mine, other_value) and mine != other_value:
            raise _refusal(path, other, f"mean other things by {axis}={label}: {mine!r} and {other_value!r}")
    for stage in a["cells"]:
        if stage not in b["cells"]:
            continue
        first, second = a["cells"][stage], b["cells"][stage]
        for name, digest in first["configs"].items():
            if second["configs"].get(name, digest) != digest:
                raise _refusal(path, other, f"were made with other contents of {name}")
        unlike = _unlike(first["command"].split(" "), second["command"].split(" "), a, b)
        if unlike is not None:
            raise _refusal(path, other, f"were made by other commands of the stage {stage!r}: {unlike}")


def _unlike(ours: Sequence[str], theirs: Sequence[str], a: SweepRecord, b: SweepRecord) -> str | None:
    """The first difference of two command lines that their labels do not explain."""
    differing = [axis for axis in a["labels"] if a["labels"][axis] != b["labels"].get(axis)]
    known = bool(a.get("values") and b.get("values")) or all(axis in STRATA for axis in differing)
    options, others = ([word for word in words if word.startswith("-")] for words in (ours, theirs))
    if options != others:
        return f"options {' '.join(options)} and {' '.join(others)}"
    if len(ours) != len(theirs):
        return f"{len(ours)} and {len(theirs)} words" if known else None
    texts = ((a["labels"], b["labels"]), (a.get("values", {}), b.get("values", {})))
    pairs = [(one[axis], other[axis]) for one, other in texts for axis in differing if axis in one and axis in other]
    for position, (one, other) in enumerate(zip(ours, theirs, strict=True)):
        if one == other or _explained(one, other, pairs):
            continue
        # Records of older versions do not say what a label stands for: a config perhaps, but hardly a number.
        if known or (_is_number(one) and _is_number(other)):
            option = ours[position - 1] if position and ours[position - 1].startswith("-") else ""
            return f"{option} {one!r} and {other!r}".strip()
    return None


def _explained(one: str, other: str, pairs: Sequence[tuple[str, str]]) -> bool:
    """Whether the second word is the first with some labels, or their values, in the place of others."""
    pairs = sorted({pair for pair in pairs if pair[0]}, key=lambda pair: -len(pair[0]))
    if not pairs:
        return False
    found = re.split("|".join(f"({re.escape(ours)})" for ours, _ in pairs), one)
    pattern = ""
    for place, part in enumerate(found):
        which = place % (len(pairs) + 1)
        if which == 0:
            pattern += re.escape(part)
        elif part is not None:
            theirs = {re.escape(mine_theirs[1]) for mine_theirs in pairs if mine_theirs[0] == part}
            pattern += f"(?:{'|'.join(sorted({re.escape(part), *theirs}))})"
    return re.fullmatch(pattern, other) is not None


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _returns_of_demo(record: DemoRecord) -> dict[str, dict[str, list[float]]]:
    return {task["task"]: task["returns"] for task in record["tasks"]}


def _refusal(ours: Path, theirs: Path, why: str) -> LitPWMError:
    return LitPWMError(
        f"The runs of {str(ours)!r} and {str(theirs)!r} {why}. Reported as one, they would be no experiment: name the "
        f"folders of runs that belong together."
    )
