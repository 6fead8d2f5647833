"""Data: the episode store, collecting into it, and the LightningDataModule that draws slices from it.

Names are resolved on first use, so that reading or checking a store loads neither torch nor a simulator.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_EXPORTS = {
    "EpisodeStore": "datamodules.store",
    "Episode": "datamodules.episode",
    "EpisodeWriter": "datamodules.writer",
    "SliceSampler": "datamodules.sampler",
    "MultitaskDataModule": "datamodules.multitask",
    "collect": "datamodules.collecting",
}
__all__ = ["Episode", "EpisodeStore", "EpisodeWriter", "MultitaskDataModule", "SliceSampler", "collect"]

if TYPE_CHECKING:
    from datamodules.collecting import collect
    from datamodules.episode import Episode
    from datamodules.multitask import MultitaskDataModule
    from datamodules.sampler import SliceSampler
    from datamodules.store import EpisodeStore
    from datamodules.writer import EpisodeWriter


def __getattr__(name: str) -> Any:
    if name in _EXPORTS:
        return getattr(importlib.import_module(_EXPORTS[name]), name)
    raise AttributeError(f"module 'datamodules' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
