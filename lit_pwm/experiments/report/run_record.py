"""What ran, where and with what: enough to repeat it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from lit_pwm.experiments.report.markup import notice
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

    def render(self, page: Page) -> str:
        """A table for each heading."""
        if not self.record:
            return notice("Nothing was recorded.")
        parts = []
        for heading, entries in self.record.items():
            rows = "".join(
                f'<tr><th scope="row">{escape(str(name))}</th><td class="text">{_shown(value)}</td></tr>'
                for name, value in entries.items()
            )
            parts.append(
                f'<h3>{escape(heading)}</h3><figure class="table"><table><tbody>{rows}</tbody></table></figure>'
            )
        return "".join(parts)


def _shown(value: Value) -> str:
    if isinstance(value, Mapping):
        return "<br>".join(f"{escape(str(name))}: {_shown(inner)}" for name, inner in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(_shown(inner) for inner in value)
    if isinstance(value, str) and (" --" in value or "/" in value):
        return f"<code>{escape(value)}</code>"
    return escape(f"{value:.6g}" if isinstance(value, float) else str(value))
