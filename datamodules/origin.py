"""What a store was made of, when and by which versions, in a file beside it: the store has no times and no paths."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lit_pwm.provenance import versions
from lit_pwm.runtime.atomic import replacing

_LOG = logging.getLogger(__name__)
_KIND = "lit_pwm origin of a store"
_LARGEST = 2**26


def write_origin(store: Path, settings: Mapping[str, object]) -> None:
    """Write `F.json` beside `F.h5`; one of an earlier store of that name is replaced, another's file is left alone.

    Args:
        store: the store's final name.
        settings: what it was made of: files with their sizes and times of change, options.

    Raises:
        LitPWMError: it cannot be written.
    """
    path = store.with_suffix(".json")
    if path == store or (path.exists() and read_origin(store) is None):
        _LOG.warning("What %r was made of is not written down: %r is another file.", store.name, str(path))
        return
    told = {"kind": _KIND, "store": store.name, "made": datetime.now(UTC).isoformat(timespec="seconds")}
    with replacing(path, f"What the store {store.name!r} was made of") as beside:
        beside.write_text(json.dumps({**told, **settings, "versions": versions()}, indent=1) + "\n", encoding="utf-8")


def read_origin(store: Path) -> dict[str, Any] | None:
    """What is written beside a store of how it was made; None where nothing is, or where it is another's file."""
    path = store.with_suffix(".json")
    try:
        if path == store or path.stat().st_size > _LARGEST:
            return None
        found = json.loads(path.read_bytes())
        return found if found["kind"] == _KIND else None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
