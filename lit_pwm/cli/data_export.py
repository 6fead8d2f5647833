"""The verb `data export`: a store's episodes as a data set of another project's."""

from __future__ import annotations

import argparse
import sys

from lit_pwm.paths import path_argument


def add_export_parser(own: argparse._SubParsersAction) -> None:
    """Register the verb with `data`."""
    parser = own.add_parser(
        "export",
        help="a store's episodes as a data set of Minari's or LeRobot's",
        description="Write a store's episodes of one task as a data set of Minari's (HDF5) or LeRobot's (version 3), "
        "with actions in the environment's bounds.",
    )
    parser.add_argument("store", type=path_argument, metavar="F.h5", help="the episode store")
    parser.add_argument("--to", required=True, choices=("minari", "lerobot"), help="the format")
    parser.add_argument("--out", required=True, type=path_argument, metavar="DIR", help="its folder; it must not exist")
    parser.add_argument("--task", metavar="NAME", help="which task, where the store has several")
    parser.set_defaults(run=run_export)


def run_export(arguments: argparse.Namespace) -> int:
    """Export, then say where it is."""
    from datamodules.store_export import export_store

    export_store(
        arguments.store,
        arguments.out,
        arguments.to,
        arguments.task,
        say=lambda sentence: print(sentence, file=sys.stderr),
    )
    print(f"Written: {arguments.out}")
    return 0
