"""Text from stores as a page and its drawings can show it."""

from __future__ import annotations

import unicodedata

_LONGEST, _LONGEST_LABEL = 60, 36


def printable(text: str, longest: int = _LONGEST) -> str:
    """A text as it is, or in quotes and escaped where it holds what a page cannot show; cut where it is wide.

    Args:
        text: from a file.
        longest: width that is left, in letters; those of wide scripts count twice.
    """
    shown, width = text if text.isprintable() else ascii(text), 0
    for place, letter in enumerate(shown):
        width += 2 if unicodedata.east_asian_width(letter) in "WF" else 1
        if width > longest:
            return f"{shown[:place]}…"
    return shown


def label(text: str) -> str:
    """A text as a drawing's title or legend has room for it."""
    return printable(text, _LONGEST_LABEL)
