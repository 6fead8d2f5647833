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
        description="Make the report of one or several demo runs anew from their records.",
    )
    parser.add_argument("runs", nargs="+", metavar="RUNS", help="run folders, or folders that contain them")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder of the report")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Find the records and report them."""
    folders: list[Path] = []
    for name in arguments.runs:
        found = sorted(path.parent for path in Path(name).rglob("record.json")) if Path(name).is_dir() else []
        if not found:
            raise LitPWMError(
                f"{name!r} holds no record.json of a finished run, nor does any folder in it. Name the folder of a "
                f"run, for example report/runs after `lit-pwm demo`."
            )
        folders += found

    from lit_pwm.experiments.record import report_runs

    report_runs(folders, Path(arguments.out))
    return 0
