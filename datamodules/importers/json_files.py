"""JSON files of other projects."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lit_pwm.errors import LitPWMError


def json_object(path: Path) -> dict[str, Any]:
    """The object in a file.

    Raises:
        LitPWMError: it cannot be read, or is none.
    """
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise LitPWMError(f"{str(path)!r} cannot be read as JSON ({error}). It is missing or damaged.") from error
    if not isinstance(found, dict):
        raise LitPWMError(f"{str(path)!r} holds {type(found).__name__} where a JSON object is expected.")
    return found
