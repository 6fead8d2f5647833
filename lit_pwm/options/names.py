"""Names in one text, as options of the command line take several."""

from __future__ import annotations


def names_in(text: str | None) -> list[str]:
    """Names that commas separate, without the space around them; those of nothing are none."""
    return [name.strip() for name in (text or "").split(",") if name.strip()]
