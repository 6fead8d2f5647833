"""The verb `checkpoint export`: a policy as a file that runs without lit_pwm."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lit_pwm.errors import LitPWMError
from lit_pwm.options import CountOrZero, Positive, Seed, argument
from lit_pwm.options.names import names_in
from lit_pwm.paths import checkpoint_argument, path_argument
from lit_pwm.runtime.outputs import check_file

if TYPE_CHECKING:
    from lit_pwm.checkpoints.exported_policy import ExportedPolicy
    from lit_pwm.models.policy import Policy


def add_export_parser(own: argparse._SubParsersAction) -> None:
    """Register the verb with `checkpoint`."""
    parser = own.add_parser(
        "export",
        help="write the deterministic policy as a graph that runs without lit_pwm",
        description="Write a policy that acts without noise (standardisation, encoder, actor, mask; the task id is an "
        "input) to one file, see that it acts as the original does, and show what both earn.",
    )
    parser.add_argument("checkpoint", type=checkpoint_argument, metavar="F", help="a policy's checkpoint")
    parser.add_argument("--to", required=True, metavar="torch-export|onnx", help="the format")
    parser.add_argument("--out", required=True, type=path_argument, metavar="G", help="the file to write")
    parser.add_argument(
        "--tasks",
        metavar="A,B",
        help="tasks in which both are compared (default: those it was trained for; other projects' files do not say)",
    )
    parser.add_argument(
        "--tolerance",
        type=argument(Positive),
        default=1e-5,
        metavar="D",
        help="largest difference of an action from the original's (default 1e-5), on 1,000 observations of each task",
    )
    parser.add_argument(
        "--episodes",
        type=argument(CountOrZero),
        default=10,
        metavar="N",
        help="episodes of each task that both run beside each other (default 10; 0 for none)",
    )
    parser.add_argument(
        "--seed", type=argument(Seed), default=0, metavar="S", help="first environment seed (default 0)"
    )
    parser.set_defaults(run=run_export)


def run_export(arguments: argparse.Namespace) -> int:
    """Export, and print how the written policy compares with the original."""
    from lit_pwm.checkpoints.exported_policy import require_format

    require_format(arguments.to)
    named = names_in(arguments.tasks)
    if arguments.tasks is not None and not named:
        raise LitPWMError("The option --tasks names no task. Write names separated by commas: --tasks A,B.")
    read = [arguments.checkpoint] if Path(arguments.checkpoint).exists() else []
    check_file(arguments.out, "--out", read)

    import torch

    from lit_pwm.checkpoints import load_policy
    from lit_pwm.checkpoints.export_policy import OBSERVATIONS, export_policy

    torch.set_num_threads(1)
    policy = load_policy(arguments.checkpoint, acting_in=named or None)
    exported, differences = export_policy(policy, arguments.to, arguments.out, arguments.tolerance, named)
    size = Path(arguments.out).stat().st_size
    print(
        f"{arguments.out}: {arguments.to}, {size / 1e6:.1f} MB, {len(exported.task_names)} tasks. On {OBSERVATIONS:,} "
        f"observations of each of {', '.join(differences)}, an action differs from the original's by at most "
        f"{max(differences.values()):.1e}."
    )
    tasks = named or policy.trained_tasks
    if arguments.episodes and tasks:
        _compare_returns(policy, exported, tasks, arguments.episodes, arguments.seed)
    elif arguments.episodes:
        print("No returns: the file does not say for which task it was trained. Name it: --tasks A.", file=sys.stderr)
    return 0


def _compare_returns(policy: Policy, exported: ExportedPolicy, tasks: Sequence[str], episodes: int, seed: int) -> None:
    from rich.markup import escape
    from rich.table import Table

    from lit_pwm.evaluation.evaluator import evaluate_task
    from lit_pwm.runtime.consoles import ResultConsole

    table = Table("task", title=f"{episodes} episodes, environment seeds {seed} to {seed + episodes - 1}")
    for heading in ("return", "return of the export", "largest difference of an episode"):
        table.add_column(heading, justify="right")
    for task in tasks:
        try:
            ours, theirs = (evaluate_task(acting, task, episodes, seed) for acting in (policy, exported))
        except LitPWMError as error:  # the file is written: a task without an environment here only lacks its returns
            print(f"No returns of {task!r}: {error}", file=sys.stderr)
            continue
        apart = max(abs(a - b) for a, b in zip(ours.returns, theirs.returns, strict=True))
        table.add_row(escape(task), f"{ours.mean:.1f}", f"{theirs.mean:.1f}", f"{apart:.2g}")
    if table.row_count:
        ResultConsole().print(table)
