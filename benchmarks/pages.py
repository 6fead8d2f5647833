"""Tables on the pages of docs/ and in the README."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

DOCS = Path(__file__).parent.parent / "docs"
FLOW_PAGE = DOCS / "flow_dynamics.md"


def put(page: Path, name: str, text: str) -> None:
    """Replace what stands between a page's markers of that name."""
    content = page.read_text()
    begin, end = f"<!-- {name} -->", f"<!-- end {name} -->"
    head, rest = content.split(begin)
    page.write_text(f"{head}{begin}\n{text}\n{end}{rest.split(end)[1]}")


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]], words: int = 1) -> str:
    """A table whose first columns, `words` of them, are aligned to the left and the others to the right."""
    rule = ["---"] * words + ["---:"] * (len(head) - words)
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (head, rule, *rows))
