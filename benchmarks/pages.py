"""Tables on the pages of docs/ and in the README."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
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


def publish(
    about: str | None,
    results: Path,
    page: Path,
    sections: Callable[[Path], Mapping[str, str]],
    figure: Path,
    drawn: Callable[[Path], str | None],
) -> None:
    """The command of a study's page: print what its records say, and put that on the page where they are committed.

    Args:
        about: the command's help.
        results: the folder of committed records; `--results` names another.
        page: the page.
        sections: folder of records → what stands between the page's markers, by their name.
        figure: where the page's figure is; that of other records lies beside them.
        drawn: folder of records → the figure as SVG; None where there is nothing to draw.
    """
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=results)
    folder = parser.parse_args().results
    committed = folder.resolve() == results.resolve()
    for name, text in sections(folder).items():
        print(f"{text}\n")
        if committed:
            put(page, name, text)
    if (svg := drawn(folder)) is not None:
        (figure if committed else folder / figure.name).write_text(svg, encoding="utf-8")


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]], left: Collection[int] = (0,)) -> str:
    """A table whose columns of text, `left`, are aligned to the left and the others to the right."""
    return Table.of(head, rows, left).markdown().rstrip("\n")
