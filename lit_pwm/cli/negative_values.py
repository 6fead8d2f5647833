"""Values of options that begin with a negative number."""

from __future__ import annotations

import argparse
import re


def take_negative_values(parser: argparse.ArgumentParser) -> None:
    """Let a parser without options like `-1` take what begins with a negative number for a value.

    By itself argparse does so for `-2` and `-2.5` alone; it has no public way to say that `-2,2` and `-1e3` are values.
    """
    parser._negative_number_matcher = re.compile(r"-[\d.]")
