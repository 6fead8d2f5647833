"""Records of studies: small JSON files, written whole, that are not mixed with those of other numbers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from lit_pwm.errors import LitPWMError
from lit_pwm.runtime.atomic import replacing

_WORDS = {"updates": "{} updates", "model_updates": "{} updates of the world model", "futures_seed": "held-out seed {}"}


def refuse_another(path: Path, kind: str, wanted: Mapping[str, object]) -> None:
    """Make sure that a record is of what this run asks for: `kind`, "a model" say, of these numbers.

    Raises:
        LitPWMError: it is of others.
    """
    there = json.loads(path.read_text())
    other = [key for key, value in wanted.items() if there.get(key) != value]
    if other:
        found, asked = (" and ".join(_WORDS[key].format(of.get(key)) for key in other) for of in (there, wanted))
        raise LitPWMError(
            f"{str(path)!r} records {kind} of {found}, and this run asks for {asked}. Give another --results, or the "
            f"same numbers."
        )


def write_record(path: Path, content: Mapping[str, object]) -> None:
    """Write a small JSON file, whole or not at all."""
    with replacing(path, "A record of the study") as part:
        part.write_text(json.dumps(content, indent=1) + "\n")
