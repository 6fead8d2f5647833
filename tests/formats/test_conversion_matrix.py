"""The table of conversions in docs/checkpoints.md is what conversions do."""

from __future__ import annotations

import conversion_matrix
import pytest
from support import ROOT

from lit_pwm.checkpoints.formats import FORMATS

PAGE = (ROOT / "docs" / "checkpoints.md").read_text()
SHOWN = PAGE.partition("<!-- conversions -->")[2].partition("<!-- end conversions -->")[0].strip()
HEAD, _, *ROWS = [[cell.strip() for cell in line.strip("|").split("|")] for line in SHOWN.splitlines()]


def test_the_table_has_each_format_and_source():
    assert HEAD[1:] == [one.name for one in FORMATS]
    assert [row[0] for row in ROWS] == list(conversion_matrix.SOURCES)
    described = PAGE.partition("<!-- conversions -->")[0]
    assert all(f"`{one.name}`" in described for one in FORMATS)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_differences_are_as_the_table_says(row, tmp_path):
    """Zero is zero, refused is refused, and what rounding leaves, which machines do differently, is small."""
    source, *cells = row
    for target, shown in zip(HEAD[1:], cells, strict=True):
        found = conversion_matrix.cell(conversion_matrix.measured(source, target, tmp_path))
        number = found.rstrip("*")
        assert found.count("*") == shown.count("*"), target
        if shown.rstrip("*") in ("0", conversion_matrix.REFUSED):
            assert found == shown, target
        else:
            assert 0 < float(number) <= 1e-5, target
            assert float(shown.rstrip("*")) <= 1e-5, target
