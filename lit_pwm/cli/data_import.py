"""The verb `data import`: other projects' data into an episode store."""

from __future__ import annotations

import argparse
import sys

from lit_pwm.cli.negative_values import take_negative_values
from lit_pwm.errors import LitPWMError
from lit_pwm.options import Count, argument
from lit_pwm.options.names import names_in
from lit_pwm.paths import path_argument


def add_import_parser(own: argparse._SubParsersAction) -> None:
    """Register the verb with `data`; the options of formats are what their importers declare."""
    from datamodules.importers.all_formats import IMPORTERS, all_options, format_names

    parser = own.add_parser(
        "import",
        help="other projects' data into a new store",
        description="Import other projects' data into a new episode store: "
        + "; ".join(f"{importer.name}: {importer.title}" for importer in IMPORTERS)
        + ". Killed at any moment, it goes on where it was when it is run again.",
    )
    take_negative_values(parser)  # --action-bounds -2,2
    parser.add_argument("sources", nargs="+", type=path_argument, metavar="SRC", help="a file or a data set's folder")
    parser.add_argument(
        "--out", required=True, type=path_argument, metavar="F.h5", help="the new store; it must not exist"
    )
    parser.add_argument(
        "--format", metavar="|".join(format_names()), help="the format (default: told by the files' content)"
    )
    parser.add_argument("--tasks", metavar="A,B", help="names of tasks to import, separated by commas (default: all)")
    parser.add_argument(
        "--limit", type=argument(Count), metavar="N", help="import the first N episodes only, of the tasks chosen"
    )
    parser.add_argument(
        "--clip-actions", action="store_true", help="clip actions beyond their bounds, which are refused otherwise"
    )
    parser.add_argument(
        "--clamp-rewards",
        action="store_true",
        help="clamp rewards beyond the range of a model's bins, ±22,025.5, which are refused otherwise",
    )
    for option in all_options():
        takers = ", ".join(importer.name for importer in IMPORTERS if option in importer.options)
        parser.add_argument(
            option.flag,
            type=option.parse,
            choices=option.choices,
            metavar=option.metavar,
            help=f"{option.help} ({takers})",
        )
    parser.set_defaults(run=run_import)


def run_import(arguments: argparse.Namespace) -> int:
    """Import, then say what there is."""
    from datamodules.importers.all_formats import all_options
    from datamodules.importing import import_data
    from lit_pwm.cli.data import run_info

    tasks = None
    if arguments.tasks is not None:
        tasks = names_in(arguments.tasks)
        if not tasks:
            raise LitPWMError("The option --tasks names no task. Write names separated by commas: --tasks A,B.")
    given = {option.key: getattr(arguments, option.key) for option in all_options()}
    import_data(
        arguments.sources,
        arguments.out,
        arguments.format,
        {key: value for key, value in given.items() if value is not None},
        tasks,
        arguments.limit,
        arguments.clip_actions,
        arguments.clamp_rewards,
        say=lambda sentence: print(sentence, file=sys.stderr),
    )
    return run_info(argparse.Namespace(store=arguments.out))
