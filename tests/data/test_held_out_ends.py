"""Held-out episodes are chosen without regard to how they ended, wherever others are as long."""

from __future__ import annotations

import pytest
from numbered_episodes import write_ends

from datamodules import MultitaskDataModule


def chosen(path, **options):
    data = MultitaskDataModule(path, **{"horizon": 3, "batch_size": 4, "val_fraction": 0.3, **options})
    data.setup()
    return data


def test_short_episodes_that_go_on_are_held_out_beside_those_that_terminated(tmp_path):
    path = write_ends(tmp_path / "short.h5", [("cup-catch", 10, number % 4 == 0, True) for number in range(40)])
    data = chosen(path)
    held = data.table.terminated[data.held_out]
    assert len(held) == 12
    assert 0 < held.sum() < 10
    assert len(next(iter(data.val_dataloader()))["action"]) == 10
    asked = chosen(path, val_horizon=16)
    assert asked.table.terminated[asked.held_out].all()


def test_where_all_terminated_validation_looks_beyond_their_ends(tmp_path):
    path = write_ends(tmp_path / "all.h5", [("cup-catch", 1, True, True)] * 10)
    data = chosen(path)
    batch = next(iter(data.val_dataloader()))
    assert len(batch["action"]) == 16
    assert data.held_out.sum() == 3
    assert batch["valid"].sum(0).tolist() == [1] * 3


@pytest.mark.parametrize("ended", [0, 4, 8])
def test_a_single_end_that_training_does_not_see_is_told(ended, tmp_path):
    path = write_ends(tmp_path / "one.h5", [("cup-catch", 10, number == ended, True) for number in range(11)])
    data = chosen(path)
    unseen = bool(data.table.terminated[data.held_out].any())
    assert (data.termination_rates()["cup-catch"] == 0) == unseen
    assert any("All episodes of 'cup-catch' that terminated" in notice for notice in data._split.notices) == unseen
