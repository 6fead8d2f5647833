"""What tells data from other data: a digest of the checksums that stores hold of all they hold."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

from datamodules.store import EpisodeStore


def fingerprint(stores: Sequence[EpisodeStore], tasks: Sequence[str]) -> str | None:
    """A digest of 16 hexadecimal digits of the stores' contents and the tasks chosen from them, both in order.

    Copies of a store have the same, whatever they are called. None where a store has no checksums (version 1).
    """
    contents = [store.content for store in stores]
    if None in contents:
        return None
    return hashlib.sha256(json.dumps([contents, list(tasks)]).encode()).hexdigest()[:16]
