"""The verb `data card`: a page that shows what a store holds."""

from __future__ import annotations

import argparse

from lit_pwm.options import CountOrZero, argument
from lit_pwm.paths import path_argument


def add_card_parser(own: argparse._SubParsersAction) -> None:
    """Register the verb with `data`."""
    parser = own.add_parser(
        "card",
        help="a page that shows what a store holds",
        description="Make a store's data card, as a page (index.html) and as Markdown (README.md): returns by task and "
        "source, coverage of observations and actions, example episodes as curves and videos, and how it was made.",
    )
    parser.add_argument("store", type=path_argument, metavar="F.h5", help="the episode store")
    parser.add_argument(
        "--out", required=True, type=path_argument, metavar="DIR", help="the card's folder; it must not exist"
    )
    parser.add_argument(
        "--videos",
        type=argument(CountOrZero),
        default=6,
        metavar="N",
        help="the most episodes shown as videos (default 6), of those that replaying gives as they are stored",
    )
    parser.set_defaults(run=run_card)


def run_card(arguments: argparse.Namespace) -> int:
    """Make the card, then say where it is."""
    from lit_pwm.experiments.card.card_building import make_card

    print(f"Written: {make_card(arguments.store, arguments.out, arguments.videos)}")
    return 0
