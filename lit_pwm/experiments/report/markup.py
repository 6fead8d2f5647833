"""HTML of reports: templates fill in values, and escape every one that does not say that it is HTML."""

from __future__ import annotations

import functools
from pathlib import Path

import jinja2
from markupsafe import Markup

TEMPLATES = Path(__file__).parent / "templates"


@functools.cache
def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def document(template: str, **values: object) -> str:
    """A whole page from a template."""
    return _environment().get_template(template).render(**values)


def piece(name: str, *values: object) -> Markup:
    """A piece of a page, by a macro of `templates/pieces.html`; it is HTML, as what is joined of pieces is."""
    return getattr(_environment().get_template("pieces.html").module, name)(*values)


def paragraph(text: str) -> Markup:
    """A paragraph of plain text."""
    return piece("paragraph", text)


def notice(text: str) -> Markup:
    """A remark that something is missing, plain text."""
    return piece("notice", text)


def panels(parts: list[Markup]) -> Markup:
    """Figures side by side where there is room."""
    return piece("panels", parts)
