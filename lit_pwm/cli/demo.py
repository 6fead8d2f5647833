"""The verb `demo`: the whole job on data it collects itself."""

from __future__ import annotations

import argparse
from pathlib import Path

from lit_pwm.options import Positive, Seed, argument
from lit_pwm.paths import path_argument
from lit_pwm.runtime.outputs import check_folder


def add_parser(verbs: argparse._SubParsersAction) -> None:
    """Register the verb."""
    parser = verbs.add_parser(
        "demo",
        help="collect, pre-train, learn policies, evaluate and report, in minutes on two cores",
        description="The whole job on data it collects itself; ends with a table and a report.",
    )
    parser.add_argument(
        "--minutes",
        type=argument(Positive),
        metavar="M",
        help="scale the work to about M minutes on two idle cores; by default the plan behind the README's figures",
    )
    parser.add_argument(
        "--out", default="report", type=path_argument, metavar="DIR", help="folder of the report (default report)"
    )
    parser.add_argument("--seed", type=argument(Seed), default=0, metavar="S", help="seed of everything (default 0)")
    parser.add_argument(
        "--overwrite", action="store_true", help="replace an earlier run of this seed, once the new one is finished"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run the demo."""
    out = Path(arguments.out)
    check_folder(out, "--out")

    from lit_pwm.experiments.demo.demo_plan import plan_for
    from lit_pwm.experiments.demo.demo_record import RECORD
    from lit_pwm.experiments.demo.demo_report import report_runs
    from lit_pwm.experiments.demo.rounds import Demo
    from lit_pwm.experiments.own_folders import only_one, replacing_folder

    plan, final = plan_for(arguments.minutes), out / "runs" / f"demo-seed{arguments.seed}"
    with only_one(out, "demo"):
        with replacing_folder(final, arguments.overwrite, known_by=(RECORD,)) as folder:
            Demo(plan, folder, arguments.seed).run()
        report_runs([final], out)
    return 0
