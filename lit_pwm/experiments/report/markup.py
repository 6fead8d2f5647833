"""Small pieces of HTML that several sections use."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape


class Html(str):
    """Text that is HTML already; everything else is escaped where it enters the page."""

    __slots__ = ()


def html(text: str) -> str:
    """Text as HTML: escaped, unless it says that it is HTML."""
    return text if isinstance(text, Html) else escape(text)


_MARKDOWN = str.maketrans(
    {**{sign: f"\\{sign}" for sign in "\\|`[]"}, "<": "&lt;", ">": "&gt;", "&": "&amp;", "\n": " ", "\r": " "}
)


def markdown_text(text: str) -> str:
    """Plain text as Markdown that stays in its table's cell: no HTML, no links, no code, no lines."""
    return text.translate(_MARKDOWN)


def paragraph(text: str) -> str:
    """A paragraph of plain text."""
    return f"<p>{escape(text)}</p>"


def notice(text: str) -> str:
    """A remark that something is missing, plain text."""
    return f'<p class="notice">{escape(text)}</p>'


def panels(figures: Sequence[str]) -> str:
    """Figures side by side where there is room."""
    return f'<div class="panels">{"".join(figures)}</div>'


def table(head: Sequence[str], rows: Sequence[Sequence[str]], caption: str = "", *, total: bool = False) -> str:
    """A table that scrolls sideways on narrow screens.

    Args:
        head: headings, plain text.
        rows: cells; the first of a row is plain text and its heading, the others are `<td>` elements.
        caption: below the table, plain text.
        total: the last row sums up the others.
    """
    headings = "".join(f'<th scope="col">{escape(name)}</th>' for name in head)
    lines = [f'<th scope="row">{escape(first)}</th>{"".join(cells)}' for first, *cells in rows]
    openings = ["<tr>"] * (len(lines) - 1) + ['<tr class="total">' if total else "<tr>"]
    body = "".join(f"{opening}{line}</tr>" for opening, line in zip(openings, lines, strict=False))
    region = f'class="scroll" tabindex="0" role="region" aria-label="{escape(caption or "table")}"'
    return (
        f'<figure class="table"><div {region}>'
        f"<table><thead><tr>{headings}</tr></thead><tbody>{body}</tbody></table></div>"
        f"{f'<figcaption>{escape(caption)}</figcaption>' if caption else ''}</figure>"
    )


def cell(text: str, small: str = "", *, kind: str = "") -> str:
    """A table's cell.

    Args:
        text: plain text.
        small: plain text below it.
        kind: the cell's CSS class: `best` or `text`.
    """
    opening = f'<td class="{kind}">' if kind else "<td>"
    return f"{opening}{escape(text)}{f'<small>{escape(small)}</small>' if small else ''}</td>"
