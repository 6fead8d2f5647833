"""The report's page: sections in, a folder with an `index.html` that needs nothing else out."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from markupsafe import Markup

from lit_pwm.errors import LitPWMError
from lit_pwm.experiments.report.markup import document, piece
from lit_pwm.runtime.atomic import replacing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

VIDEO_ENDINGS = (".mp4", ".webm")
"""Of videos that a page can show."""
_ANCHOR = re.compile(r"[a-z][a-z0-9-]*")


class Section(Protocol):
    """A part of the report; its data are given to its constructor."""

    @property
    def title(self) -> str:
        """The heading, plain text."""
        ...

    @property
    def anchor(self) -> str:
        """The part's address within the page, in lower case with hyphens; it also starts its assets' names."""
        ...

    def render(self, page: Page) -> str:
        """The part as HTML without its heading; figures and files are handed to the page, which returns their HTML.

        Text of runs gets there by `lit_pwm.experiments.report.markup`, which escapes it.
        """
        ...


class Page:
    """Where sections leave their figures and files, each under `assets/` of the report's folder.

    Args:
        folder: the report's folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._taken: set[str] = set()

    def figure(self, name: str, figure: Figure, alt: str, caption: str = "", *, wide: bool = False) -> Markup:
        """Save a drawing of `lit_pwm.experiments.report.figures` for light and dark pages; returns its HTML.

        Args:
            name: of its files, without ending; unique in the report.
            figure: the drawing.
            alt: what a reader who cannot see it should know.
            caption: text below it, plain.
            wide: let it take the page's width.
        """
        from lit_pwm.experiments.report.figures import as_svg, in_the_dark

        light = as_svg(figure)
        width, height = (round(float(side) * 96) for side in figure.get_size_inches())
        light_url, dark_url = self._write(f"{name}.svg", light), self._write(f"{name}-dark.svg", in_the_dark(light))
        return piece("drawing", light_url, dark_url, alt, width, height, caption, wide)

    def video(self, name: str, path: Path, label: str, caption: str = "", emphasis: str = "") -> Markup:
        """Copy a video into the report; returns its HTML.

        Args:
            name: of its file, without ending; unique in the report.
            path: the video, whose ending is one that pages show.
            label: what a reader who cannot see it should know.
            caption: text below it, plain.
            emphasis: a word before the caption, plain.

        Raises:
            LitPWMError: the file cannot be read, or has another ending.
        """
        if path.suffix not in VIDEO_ENDINGS:
            raise LitPWMError(f"The video {str(path)!r} for the report has an ending that is none of {VIDEO_ENDINGS}.")
        url = self._copy(path, f"{name}{path.suffix}")
        return piece("video", url, label, caption, emphasis)

    def _claim(self, name: str) -> Path:
        if name in self._taken:
            raise LitPWMError(f"Two parts of the report want to write the asset {name!r}; give each its own name.")
        self._taken.add(name)
        return self.folder / "assets" / name

    def _write(self, name: str, text: str) -> str:
        with replacing(self._claim(name), "The report's asset") as beside:
            beside.write_text(text, encoding="utf-8")
        return f"assets/{name}"

    def _copy(self, source: Path, name: str) -> str:
        if source.is_symlink() or not source.is_file():
            raise LitPWMError(f"There is no regular file {str(source)!r}, which belongs into the report. Make it anew.")
        with replacing(self._claim(name), "The report's asset") as beside:
            shutil.copyfile(source, beside)
        return f"assets/{name}"


def build_report(
    sections: Sequence[Section],
    out: str | Path,
    *,
    title: str = "lit_pwm: report",
    lead: str = "",
    facts: Mapping[str, str] | None = None,
) -> Path:
    """Write a report: `index.html`, which refers to nothing outside the folder, and its assets.

    The assets are written first and the page last, each file beside its place and then renamed, so that a page that is
    there is whole. Other files in the folder are left alone.

    Args:
        sections: the parts, in order.
        out: the report's folder, made if need be.
        title: of the page, plain text.
        lead: a sentence or two under the title, plain text.
        facts: a few headline figures, name → value, plain text.

    Returns:
        The path of `index.html`.

    Raises:
        LitPWMError: two sections have the same anchor or an unusable one, or a file cannot be read or written.
    """
    folder = Path(out)
    page = Page(folder)
    anchors = [section.anchor for section in sections]
    for anchor in anchors:
        if not _ANCHOR.fullmatch(anchor) or anchors.count(anchor) > 1:
            raise LitPWMError(
                f"A part of the report has the anchor {anchor!r}, which another part has too or which is not made of "
                f"lower-case letters, digits and hyphens. The anchors are {anchors}; make each of them unique."
            )
    parts = [
        {"anchor": section.anchor, "title": section.title, "body": Markup(section.render(page))} for section in sections
    ]
    index = folder / "index.html"
    text = document("page.html", title=title, lead=lead, facts=facts or {}, parts=parts)
    with replacing(index, "The report's page") as beside:
        beside.write_text(text, encoding="utf-8")
    return index
