"""A file's name is enough to find it: no two share one."""

from __future__ import annotations

from collections import defaultdict

import pytest
from support import ROOT

ALIKE = {"__init__.py", "__main__.py", "conftest.py", "data.py"}
"""Names that mean something to Python or pytest, of which each folder may have one; and of two commands for data."""


@pytest.mark.parametrize("folders", [("lit_pwm", "datamodules", "callbacks", "benchmarks"), ("tests",)])
def test_no_two_files_share_a_name(folders):
    places = defaultdict(list)
    for folder in folders:
        for path in (ROOT / folder).rglob("*.py"):
            if path.name not in ALIKE:
                places[path.name].append(str(path.relative_to(ROOT)))
    assert len(places) > 40  # there is something to compare
    assert {name: found for name, found in places.items() if len(found) > 1} == {}
