"""What ran, where and with what: enough to repeat it."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from html import escape

from lit_pwm.experiments.report.markup import notice
from lit_pwm.experiments.report.page import Page
from lit_pwm.tasks.vector import usable_cores

Value = str | int | float | bool | None | Sequence["Value"] | Mapping[str, "Value"]


def describe_machine() -> dict[str, str | int]:
    """The machine as far as it bears on times and numbers: system, processor, usable cores, memory."""
    known: dict[str, str | int] = {
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "usable cores": usable_cores(),
    }
    if (model := _processor()) is not None:
        known["processor"] = model
    if "SC_PHYS_PAGES" in os.sysconf_names:
        known["memory"] = f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 2**30:.1f} GiB"
    return known


def _processor() -> str | None:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            return next((line.split(":", 1)[1].strip() for line in file if line.startswith("model name")), None)
    except OSError:
        return platform.processor() or None


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
