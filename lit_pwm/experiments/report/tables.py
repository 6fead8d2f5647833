"""Tables of what runs have achieved: made once, shown on a page, in Markdown and in a terminal."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

import rich.table
from markupsafe import Markup
from rich.text import Text

from lit_pwm.experiments.report.grid import Estimate
from lit_pwm.experiments.report.markup import piece

MISSING = "–"
Entry = tuple[str, str]
"""Text and the small text that belongs to it, such as an interval."""

_MARKDOWN = str.maketrans(
    {**{sign: f"\\{sign}" for sign in "\\|`[]"}, "<": "&lt;", ">": "&gt;", "&": "&amp;", "\n": " ", "\r": " "}
)


def entry(estimate: Estimate | None, digits: int = 0) -> Entry:
    """An estimate as text with its interval."""
    return (MISSING, "") if estimate is None else estimate.shown(digits)


def markdown_text(text: str) -> str:
    """Plain text as Markdown that stays in its table's cell: no HTML, no links, no code, no lines."""
    return text.translate(_MARKDOWN)


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        head: headings.
        rows: as many entries each as there are headings; the first is the row's heading.
        title: what a terminal shows above it.
        total: the last row sums up the others.
        marked: (row, column) of the entries that a page highlights.
        strong: columns that a terminal shows in bold.
        left: columns of text, aligned to the left; the others are aligned to the right.
    """

    head: Sequence[str]
    rows: Sequence[Sequence[Entry]]
    title: str = ""
    total: bool = False
    marked: Collection[tuple[int, int]] = frozenset()
    strong: Collection[int] = frozenset()
    left: Collection[int] = (0,)

    @classmethod
    def of(cls, head: Sequence[str], rows: Iterable[Sequence[str]], left: Collection[int] = (0,)) -> Table:
        """A table of entries without small text."""
        return cls(head, [[(text, "") for text in row] for row in rows], left=left)

    def markdown(self) -> str:
        """The table as Markdown, ending with a line break."""
        rule = ["---" if column in self.left else "---:" for column in range(len(self.head))]
        body = [[f"{text} ({small})" if small else text for text, small in row] for row in self.rows]
        lines = [map(markdown_text, self.head), rule, *(map(markdown_text, row) for row in body)]
        return "".join(f"| {' | '.join(line)} |\n" for line in lines)

    def html(self, caption: str = "") -> Markup:
        """The table as a part of a page, which scrolls sideways on narrow screens; the caption is plain text."""
        return piece("table", self, caption)

    def __rich__(self) -> rich.table.Table:
        """The table for a terminal, small text below the text."""
        shown = rich.table.Table(title=Text(self.title) if self.title else None, title_justify="left", show_lines=True)
        for column, heading in enumerate(self.head):
            justify = "left" if column in self.left else "right"
            shown.add_column(Text(heading), justify=justify, no_wrap=column == 0)
        for row in self.rows:
            shown.add_row(
                *(
                    Text(f"{text}\n{small}" if small else text, style="bold" if column in self.strong else "")
                    for column, (text, small) in enumerate(row)
                )
            )
        return shown
