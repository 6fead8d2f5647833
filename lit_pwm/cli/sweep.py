"""The verb `sweep`: a grid of command lines, run cell by cell."""

from __future__ import annotations

import argparse
import contextlib
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from lit_pwm.cli.runs import shown, size
from lit_pwm.errors import LitPWMError, did_you_mean
from lit_pwm.options import Workers, argument
from lit_pwm.paths import path_argument
from lit_pwm.runtime.outputs import check_folder

if TYPE_CHECKING:
    from lit_pwm.experiments.sweep.cells import Cell

LAUNCHERS = ("local",)


def add_parser(verbs: argparse._SubParsersAction) -> None:
    """Register the verb."""
    parser = verbs.add_parser(
        "sweep",
        help="run a grid of command lines, resumably",
        description="Run each cell of a sweep file as a lit-pwm command of its own. Run again, it skips what is "
        "finished and takes up what was interrupted; a failed cell stops only those that need it, and makes the exit "
        "code 1.",
    )
    parser.add_argument(
        "sweep",
        type=path_argument,
        metavar="SWEEP.yaml",
        help="a sweep file, for example configs/sweeps/factorial.yaml",
    )
    parser.add_argument("--out", type=path_argument, metavar="DIR", help="folder of the results (default runs/NAME)")
    parser.add_argument("--launcher", default="local", metavar="local", help="where cells run: on this machine")
    parser.add_argument(
        "--workers", type=argument(Workers), metavar="N", help="cells at a time (default: one for each core)"
    )
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="give a variable of the sweep file a value"
    )
    parser.add_argument(
        "--only", action="append", default=[], metavar="AXIS=A,B", help="run only these labels of an axis"
    )
    parser.add_argument("--records", type=path_argument, metavar="DIR", help="copy the results' small records there")
    parser.add_argument(
        "--storage-budget",
        type=size,
        metavar="SIZE",
        help="when its files have more, such as 20GB, delete checkpoints of finished cells that are neither best nor "
        "last and that no cell needs any more",
    )
    parser.add_argument("--dry-run", action="store_true", help="print the commands and run nothing")
    parser.add_argument(
        "--rerun-changed", action="store_true", help="delete and run anew finished cells whose command has changed"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run a sweep, condense what it left, and say how it went."""
    if arguments.launcher not in LAUNCHERS:
        raise LitPWMError(
            f"--launcher is {arguments.launcher!r}, which lit-pwm does not have. {did_you_mean('', LAUNCHERS)} On a "
            f"cluster, run `lit-pwm sweep --launcher local` within a job, and share its cells out by --only and --out."
        )

    from lit_pwm.experiments.sweep import cells_of, read_sweep

    pairs = [_pair(text, "--set", "NAME=VALUE") for text in arguments.set]
    for name, _ in pairs:
        values = [value for other, value in pairs if other == name]
        if len(values) > 1:
            raise LitPWMError(
                f"--set gives {name} {len(values)} values, {' and '.join(map(repr, values))}. Give it one."
            )
    chosen: dict[str, list[str]] = {}
    for axis, labels in (_pair(text, "--only", "AXIS=A,B") for text in arguments.only):
        chosen.setdefault(axis, []).extend(labels.split(","))
    sweep = read_sweep(arguments.sweep, dict(pairs))
    part = sweep.only(chosen)
    out = Path(arguments.out or f"runs/{sweep.name}")
    cells = cells_of(part)
    if arguments.dry_run:
        for cell in cells.values():
            print(shlex.join(cell.shown(out)))
        return 0

    from lit_pwm.experiments.sweep.display import Display, print_outcome
    from lit_pwm.experiments.sweep.launch import LocalLauncher
    from lit_pwm.experiments.sweep.records import check_places, write_record, write_records
    from lit_pwm.experiments.sweep.state import changed_since, refuse_changed
    from lit_pwm.experiments.sweep.storage import keep_within
    from lit_pwm.runtime.consoles import ProgressConsole
    from lit_pwm.runtime.processes import usable_cores

    check_folder(out, "--out")
    if arguments.records:
        check_folder(arguments.records, "--records")
    changed = changed_since(cells.values(), out)
    if not arguments.rerun_changed:
        refuse_changed(changed, out)
    copies = Path(arguments.records) if arguments.records else None
    check_places(sweep, cells, out, copies)
    console, workers = ProgressConsole(), arguments.workers or usable_cores()
    evaluations = set(sweep.record.returns.values()) if sweep.record else set()

    def note(cell: Cell) -> None:
        """Keep a record as soon as there is one, so that a report can be made while the sweep goes on."""
        if cell.stage in evaluations:
            with contextlib.suppress(LitPWMError):  # said at the end
                write_record(sweep, cells, cell.labels, out, copies)
        if arguments.storage_budget is not None:
            keep_within(arguments.storage_budget, cells, out)

    outcome = LocalLauncher(cells, out, workers, Display(cells, out, workers, console), note).run()
    written = write_records(sweep, cells, out, copies)
    print_outcome(outcome, cells, out, console)
    if arguments.storage_budget is not None and (over := keep_within(arguments.storage_budget, cells, out)):
        console.print(
            f"The sweep's files have {shown(over)} more than --storage-budget {shown(arguments.storage_budget)}: best "
            f"and last checkpoints, logs, data and records are not deleted.",
            highlight=False,
            markup=False,
        )
    if written:
        console.print(
            f"{len(written)} records are in {out / 'records'}. Tables and figures: lit-pwm report {out} --out report",
            highlight=False,
            markup=False,
        )
    return 1 if outcome.failed or outcome.blocked else 0


def _pair(text: str, option: str, form: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals and (value or option == "--set")):
        raise LitPWMError(f"{option} was given {text!r}; write {option} {form}.")
    return name, value
