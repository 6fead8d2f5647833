"""Options whose value is one of a few words."""

from __future__ import annotations

import argparse
from collections.abc import Callable


def one_of(*words: str) -> Callable[[str], str]:
    """Reads one of some words.

    Args:
        *words: those accepted.

    Returns:
        Text → the same text; raises argparse.ArgumentTypeError where it is none of them.
    """

    def parse(text: str) -> str:
        if text not in words:
            raise argparse.ArgumentTypeError(f"{text!r} is not known here; write {' or '.join(words)}")
        return text

    return parse
