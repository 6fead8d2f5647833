"""Rows of numbers that say where they belong, and what an importer makes of files of them."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from datamodules.importers.importer import ImportedEpisode, Importer, Plan

BOUNDS = ((-2.0,), (2.0,))


@pytest.fixture
def rows() -> Callable[[int], dict[str, np.ndarray]]:
    """N rows of observations [row, 10 row], actions -row / 2¹⁰ and rewards row / 100."""

    def make(count: int) -> dict[str, np.ndarray]:
        row = np.arange(count, dtype=np.float32)
        observations = np.stack([row, 10 * row], axis=1)
        return {"observations": observations, "actions": -row[:, None] / 2**10, "rewards": row / 100}

    return make


@pytest.fixture
def planned() -> Callable[..., Plan]:
    """The plan of files, with the options given, and a task and bounds where the format asks for them."""

    def make(importer: Importer, *sources: Path, **given) -> Plan:
        values = {option.key: option.default for option in importer.options} | {"task": "t", "action_bounds": BOUNDS}
        return importer.plan(list(sources), values | given)

    return make


@pytest.fixture
def episodes_of(planned) -> Callable[..., list[ImportedEpisode]]:
    """All episodes of files."""

    def make(importer: Importer, *sources: Path, **given) -> list[ImportedEpisode]:
        plan = planned(importer, *sources, **given)
        found = list(plan.episodes(np.arange(len(plan.length))))
        assert [len(episode.reward) for episode in found] == plan.length.tolist()
        return found

    return make
