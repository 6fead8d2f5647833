"""The verb `report`: tables and figures of runs that are finished."""

from __future__ import annotations

import argparse
from pathlib import Path

from lit_pwm.errors import LitPWMError
from lit_pwm.paths import path_argument
from lit_pwm.runtime.outputs import check_folder


def add_parser(verbs: argparse._SubParsersAction) -> None:
    """Register the verb."""
    parser = verbs.add_parser(
        "report",
        help="tables and figures of finished runs",
        description="Make the report of demo runs, or of a sweep, anew from their records.",
    )
    parser.add_argument(
        "runs", nargs="+", type=path_argument, metavar="RUNS", help="run folders, or folders that contain them"
    )
    parser.add_argument("--out", required=True, type=path_argument, metavar="DIR", help="folder of the report")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Find the records and report them."""
    from lit_pwm.experiments.run_identity import distinct_files, records_below

    records: list[Path] = []
    for name in arguments.runs:
        found = records_below(Path(name))
        if not found:
            raise LitPWMError(
                f"{name!r} holds no record of a finished run, nor does any folder in it. Name the folder of a run, for "
                f"example report/runs after `lit-pwm demo`, or of a sweep, for example runs/factorial."
            )
        records += found
    check_folder(arguments.out, "--out")
    records = distinct_files(records)
    demos = [path.parent for path in records if path.name == "record.json"]
    cells = [path for path in records if path.name.endswith(".record.json")]
    if demos and cells:
        raise LitPWMError(
            f"{' '.join(arguments.runs)} hold records of demo runs (such as {str(demos[0])!r}) and of a sweep (such as "
            f"{str(cells[0])!r}), which are different reports. Name folders of one kind."
        )
    if cells:
        from lit_pwm.experiments.sweep.sweep_report import report_sweep

        report_sweep(cells, Path(arguments.out))
    else:
        from lit_pwm.experiments.demo.demo_report import report_runs

        report_runs(demos, Path(arguments.out))
    return 0
