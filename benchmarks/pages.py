"""Tables on the pages of docs/ and in the README."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from lit_pwm.experiments.report import Table

DOCS = Path(__file__).parent.parent / "docs"
FLOW_PAGE = DOCS / "flow_dynamics.md"


def put(page: Path, name: str, text: str) -> None:
    """Replace what stands between a page's markers of that name."""
    content = page.read_text()
    begin, end = f"<!-- {name} -->", f"<!-- end {name} -->"
    head, rest = content.split(begin)
    page.write_text(f"{head}{begin}\n{text}\n{end}{rest.split(end)[1]}")


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]], left: Collection[int] = (0,)) -> str:
    """A table whose columns of text, `left`, are aligned to the left and the others to the right."""
    return Table.of(head, rows, left).markdown().rstrip("\n")
