"""What ran, where and with what: enough to repeat it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from markupsafe import Markup

from lit_pwm.experiments.report.markup import notice, piece
from lit_pwm.experiments.report.page import Page

Value = str | int | float | bool | None | Sequence["Value"] | Mapping[str, "Value"]


class RunRecordSection:
    """Seeds, versions, command line, machine, data: whatever is handed in, as tables.

    Args:
        record: heading → name → value; values are plain, or lists and dicts of plain ones.
    """

    title = "Run record"
    anchor = "run-record"

    def __init__(self, record: Mapping[str, Mapping[str, Value]]) -> None:
        self.record = record

    def render(self, page: Page) -> Markup:
        """A table for each heading."""
        if not self.record:
            return notice("Nothing was recorded.")
        parts = [piece("heading", heading) + piece("entries", entries) for heading, entries in self.record.items()]
        return Markup().join(parts)
