"""The verbs `data merge`, `data subset` and `data split`: new stores of other stores' episodes."""

from __future__ import annotations

import argparse
import sys

from lit_pwm.cli.negative_values import take_negative_values
from lit_pwm.errors import LitPWMError
from lit_pwm.options import Count, Finite, Seed, argument
from lit_pwm.options.names import names_in
from lit_pwm.paths import path_argument


def add_rework_parsers(own: argparse._SubParsersAction) -> None:
    """Register the verbs with `data`."""
    merging = own.add_parser(
        "merge", help="several stores in one", description="All episodes of some stores in a new one."
    )
    merging.add_argument("stores", nargs="+", type=path_argument, metavar="F.h5", help="the stores")
    choosing = own.add_parser(
        "subset",
        help="some episodes of a store",
        description="Episodes of a store that fit all that is given.",
    )
    splitting = own.add_parser(
        "split",
        help="a store in parts",
        description="The episodes of a store dealt to new ones, each task's by itself. Pieces may come apart.",
    )
    for parser in (choosing, splitting):
        parser.add_argument("store", type=path_argument, metavar="F.h5", help="the store")
    for parser in (merging, choosing):
        parser.add_argument("--out", required=True, type=path_argument, metavar="G.h5", help="the new store")
    take_negative_values(choosing)  # --min-return -1e3
    choosing.add_argument("--tasks", metavar="A,B", help="of these tasks only")
    choosing.add_argument(
        "--episodes", type=argument(Count), metavar="N", help="the first N of each task, of those that the others leave"
    )
    choosing.add_argument("--min-return", type=argument(Finite), metavar="R", help="of returns of at least R")
    choosing.add_argument("--max-return", type=argument(Finite), metavar="R", help="of returns of at most R")
    choosing.add_argument("--source", metavar="NAME", help="what acted, as `data info` names it")
    splitting.add_argument(
        "--out", required=True, nargs="+", type=path_argument, metavar="G.h5", help="the new stores, two or more"
    )
    splitting.add_argument("--shares", metavar="S,S", help="share of each, such as 0.9,0.1 (default: equal)")
    splitting.add_argument("--seed", type=argument(Seed), default=0, metavar="S", help="of who gets what (default 0)")
    for parser, run in ((merging, run_merge), (choosing, run_subset), (splitting, run_split)):
        parser.set_defaults(run=run)


def run_merge(arguments: argparse.Namespace) -> int:
    """Merge, then say what there is."""
    from datamodules.reworking import merge

    merge(arguments.stores, arguments.out, say=lambda sentence: print(sentence, file=sys.stderr))
    return _say(arguments.out)


def run_subset(arguments: argparse.Namespace) -> int:
    """Choose, then say what there is."""
    from datamodules.reworking import subset

    tasks = None
    if arguments.tasks is not None:
        tasks = names_in(arguments.tasks)
    subset(
        arguments.store,
        arguments.out,
        tasks,
        arguments.episodes,
        arguments.min_return,
        arguments.max_return,
        arguments.source,
    )
    return _say(arguments.out)


def run_split(arguments: argparse.Namespace) -> int:
    """Split, then say what there is."""
    from datamodules.reworking import split

    shares = None
    if arguments.shares is not None:
        try:
            shares = [float(share) for share in arguments.shares.split(",")]
        except ValueError:
            raise LitPWMError(
                f"--shares is {arguments.shares!r}; write a number for each new store: --shares 0.9,0.1."
            ) from None
    split(arguments.store, arguments.out, shares, arguments.seed)
    return _say(*arguments.out)


def _say(*paths: str) -> int:
    from lit_pwm.cli.data import run_info

    for path in paths:
        run_info(argparse.Namespace(store=path))
    return 0
