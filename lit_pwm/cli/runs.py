"""The verb `runs`: what lies in folders of runs."""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from lit_pwm.errors import LitPWMError, escaped
from lit_pwm.options import Count, CountOrZero, argument
from lit_pwm.paths import path_argument

if TYPE_CHECKING:
    from lit_pwm.experiments.pruning import Pruning

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}
_OVER_BUDGET = 1


def add_parser(verbs: argparse._SubParsersAction) -> None:
    """Register the verb with its own verbs."""
    parser = verbs.add_parser("runs", help="look after folders of runs", description="Look after folders of runs.")
    own = parser.add_subparsers(dest="runs_verb", metavar="VERB", required=True)
    prune = own.add_parser(
        "prune",
        help="delete checkpoints that are neither best nor last",
        description="Delete checkpoints below a folder that are neither best nor last, and unfinished files of killed "
        "processes. Runs in progress are left alone: those with a young heartbeat in run.json, else with a lock file "
        "or a file younger than 10 minutes.",
    )
    prune.add_argument("folder", type=path_argument, metavar="DIR", help="a run, or a folder of runs")
    prune.add_argument("--dry-run", action="store_true", help="say what would be deleted, and delete nothing")
    prune.add_argument(
        "--best", type=argument(Count), metavar="K", help="of each metric keep so many of the best (all a run has kept)"
    )
    prune.add_argument("--every", type=argument(Count), metavar="N", help="keep those of each N-th update")
    prune.add_argument(
        "--newest", type=argument(CountOrZero), default=0, metavar="N", help="keep so many of the rest of each run (0)"
    )
    prune.add_argument(
        "--budget", type=size, metavar="SIZE", help="delete no more than it takes to come below, such as 20GB or 500MiB"
    )
    prune.set_defaults(run=run_prune)


def size(text: str) -> int:
    """Bytes, of a number with a unit: `20GB`, `500MiB`, `1000`.

    Raises:
        argparse.ArgumentTypeError: it is none.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?i?)b?\s*", text.lower())
    if found is None or found[2] not in _UNITS:
        raise argparse.ArgumentTypeError(f"{text!r} is no size; write a number with a unit, such as 20GB or 500MiB")
    return int(float(found[1]) * _UNITS[found[2]])


def shown(size: float) -> str:
    """Bytes as people read them."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def run_prune(arguments: argparse.Namespace) -> int:
    """Say what can go, and let it go."""
    root = Path(arguments.folder)
    if not root.is_dir():
        raise LitPWMError(f"There is no folder {str(root)!r}. Name the folder of a run, or one that holds runs.")
    from lit_pwm.experiments.pruning import Keeping, carry_out, plan_pruning

    keeping = Keeping(arguments.best, arguments.every, arguments.newest, arguments.budget)
    pruning = plan_pruning(root, keeping)
    for run, why in sorted(pruning.running.items()):
        print(escaped(f"left alone: {run} is in progress ({why})"))
    gone, failed = (pruning.gone, {}) if arguments.dry_run else carry_out(pruning, root)
    for found in gone:
        does = "would delete" if arguments.dry_run else "deleted"
        print(escaped(f"{does}: {found.path} ({shown(found.size)}; {found.why})"))
    freed = sum(found.size for found in gone)
    verb = "would free" if arguments.dry_run else "freed"
    of = f"{shown(freed)} of {shown(pruning.size)}"
    print(f"{len(gone)} files, which {verb} {of}; {len(pruning.kept)} checkpoints stay.")
    if failed:
        first, why = next(iter(failed.items()))
        raise LitPWMError(
            f"{len(failed)} files could not be deleted, first {str(first)!r}: {why}. See who owns them and their "
            f"folders, and run the command again."
        )
    return _over(pruning, freed)


def _over(pruning: Pruning, freed: int) -> int:
    if pruning.budget is None or pruning.size - freed <= pruning.budget:
        return 0
    print(
        f"{shown(pruning.size - freed)} are left, more than the budget of {shown(pruning.budget)}: best and last "
        f"checkpoints, runs in progress, logs and records are not deleted.",
        file=sys.stderr,
    )
    return _OVER_BUDGET
