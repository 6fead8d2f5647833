"""What a card's parts are made of, each shown twice: as HTML on the page, and as Markdown."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from markupsafe import Markup

from lit_pwm.experiments.report.markup import notice, panels, paragraph, piece
from lit_pwm.experiments.report.page import Page
from lit_pwm.experiments.report.tables import Table, markdown_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Content(Protocol):
    """A piece of a part."""

    def html(self, page: Page) -> Markup:
        """On the page, which takes figures and videos."""
        ...

    def markdown(self) -> str:
        """As Markdown, ending with an empty line."""
        ...


@dataclass(frozen=True)
class Words:
    """A paragraph, or a remark that something is missing; plain text."""

    text: str
    is_notice: bool = False

    def html(self, page: Page) -> Markup:
        """A paragraph."""
        return notice(self.text) if self.is_notice else paragraph(self.text)

    def markdown(self) -> str:
        """A paragraph, or a quotation."""
        return f"{'> ' if self.is_notice else ''}{markdown_text(self.text)}\n\n"


@dataclass(frozen=True, eq=False)
class Drawing:
    """A figure.

    Attributes:
        name: of its files, without ending; unique on the card.
        figure: drawn by functions of `report.figures`.
        alt: what a reader who cannot see it should know.
        caption: text below it.
    """

    name: str
    figure: Figure
    alt: str
    caption: str = ""

    def html(self, page: Page) -> Markup:
        """For light and dark pages."""
        return page.figure(self.name, self.figure, self.alt, self.caption)

    def markdown(self) -> str:
        """A link to the file that the page has written."""
        caption = f"{markdown_text(self.caption)}\n\n" if self.caption else ""
        return f"![{markdown_text(self.alt)}](assets/{self.name}.svg)\n\n{caption}"


@dataclass(frozen=True)
class Film:
    """A video; the attributes are those of `Page.video`."""

    name: str
    path: Path
    label: str
    caption: str = ""
    emphasis: str = ""

    def html(self, page: Page) -> Markup:
        """With controls."""
        return page.video(self.name, self.path, self.label, self.caption, self.emphasis)

    def markdown(self) -> str:
        """A link."""
        return f"[{markdown_text(self.label)}](assets/{self.name}{self.path.suffix})\n\n"


@dataclass(frozen=True)
class Panels:
    """Pieces side by side."""

    parts: Sequence[Content]

    def html(self, page: Page) -> Markup:
        """As many in a row as there is room for."""
        return panels([part.html(page) for part in self.parts])

    def markdown(self) -> str:
        """One after another."""
        return "".join(part.markdown() for part in self.parts)


@dataclass(frozen=True)
class Numbers:
    """A table."""

    table: Table
    caption: str = ""

    def html(self, page: Page) -> Markup:
        """A table that scrolls."""
        return self.table.html(self.caption)

    def markdown(self) -> str:
        """A table of Markdown."""
        caption = f"\n{markdown_text(self.caption)}\n" if self.caption else ""
        return f"{self.table.markdown()}{caption}\n"


@dataclass(frozen=True)
class Entries:
    """Names and values, plain JSON."""

    entries: Mapping[str, object]

    def html(self, page: Page) -> Markup:
        """A table of two columns."""
        return piece("entries", self.entries)

    def markdown(self) -> str:
        """A list."""
        return "".join(f"- {markdown_text(name)}: {markdown_text(str(v))}\n" for name, v in self.entries.items()) + "\n"


@dataclass(frozen=True)
class Folded:
    """Pieces that are shown when they are asked for."""

    title: str
    parts: Sequence[Content]

    def html(self, page: Page) -> Markup:
        """Folded away."""
        return piece("folded", self.title, [part.html(page) for part in self.parts])

    def markdown(self) -> str:
        """Under a heading."""
        return f"### {markdown_text(self.title)}\n\n" + "".join(part.markdown() for part in self.parts)


@dataclass(frozen=True)
class CardSection:
    """A part of the card.

    Attributes:
        title: its heading, plain text.
        anchor: its address within the page.
        parts: its pieces.
        rendered: is told when the page has it, figures and all, which takes most of a card's time.
    """

    title: str
    anchor: str
    parts: Sequence[Content]
    rendered: Callable[[], None] = lambda: None

    def render(self, page: Page) -> Markup:
        """The part as HTML without its heading."""
        text = Markup("\n").join(part.html(page) for part in self.parts)
        self.rendered()
        return text

    @property
    def drawings(self) -> int:
        """How many figures are drawn for it."""
        panels = [part for part in self.parts if isinstance(part, Panels)]
        return sum(isinstance(part, Drawing) for panel in panels for part in panel.parts)

    def markdown(self) -> str:
        """The part with its heading."""
        return f"## {self.title}\n\n" + "".join(part.markdown() for part in self.parts)
