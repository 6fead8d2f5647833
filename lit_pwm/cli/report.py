"""The verb `report`: tables and figures of runs that are finished."""

from __future__ import annotations

import argparse
from pathlib import Path

from lit_pwm.errors import LitPWMError


def add_parser(verbs: argparse._SubParsersAction) -> None:
    """Register the verb."""
    parser = verbs.add_parser(
        "report",
        help="tables and figures of finished runs",
        description="Make the report of demo runs, or of a sweep, anew from their records.",
    )
    parser.add_argument("runs", nargs="+", metavar="RUNS", help="run folders, or folders that contain them")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder of the report")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Find the records and report them."""
    demos: list[Path] = []
    cells: list[Path] = []
    for name in arguments.runs:
        found = sorted(Path(name).rglob("*record.json")) if Path(name).is_dir() else []
        if not found:
            raise LitPWMError(
                f"{name!r} holds no record of a finished run, nor does any folder in it. Name the folder of a run, for "
                f"example report/runs after `lit-pwm demo`, or of a sweep, for example runs/factorial."
            )
        demos += [path.parent for path in found if path.name == "record.json"]
        cells += [path for path in found if path.name.endswith(".record.json")]
    if demos and cells:
        raise LitPWMError(
            f"{' '.join(arguments.runs)} hold records of demo runs (such as {str(demos[0])!r}) and of a sweep (such as "
            f"{str(cells[0])!r}), which are different reports. Name folders of one kind."
        )
    if cells:
        from lit_pwm.experiments.sweep.report import report_sweep

        report_sweep(cells, Path(arguments.out))
    else:
        from lit_pwm.experiments.record import report_runs

        report_runs(demos, Path(arguments.out))
    return 0
