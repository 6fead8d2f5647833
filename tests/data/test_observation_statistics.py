"""Statistics of observations come from what a store holds of each episode; a store of version 1 is scanned, once."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from sealing import seal
from support import fit

from datamodules import EpisodeStore, EpisodeWriter, MultitaskDataModule, observation_statistics, store
from lit_pwm.errors import LitPWMError
from lit_pwm.models import MLPDynamics
from lit_pwm.models.world_model_options import WorldModelOptions
from lit_pwm.pretraining import WorldModelPretraining

OLD = Path(__file__).parent / "fixtures" / "version_1.h5"


@pytest.fixture
def notices(monkeypatch):
    said = []
    monkeypatch.setattr(observation_statistics, "rank_zero_info", said.append)
    return said


@pytest.fixture
def read_rows(monkeypatch):
    """Names of the columns that are read, but for `terminated`, of which an episode's end is read to choose it."""
    names, column = [], EpisodeStore.column

    def noted(store, name):
        if name != "terminated":
            names.append(name)
        return column(store, name)

    monkeypatch.setattr(EpisodeStore, "column", noted)
    return names


def data_of(*paths, **options):
    return MultitaskDataModule([str(path) for path in paths], **{"horizon": 5, "val_fraction": 0.3} | options)


def in_float64(paths, data):
    """By task, from all rows at once."""
    stores = [EpisodeStore(path) for path in paths]
    rows = {name: [] for name in data.tasks}
    for episode, out in zip(range(len(data.table)), data.held_out, strict=True):
        if not out:
            found = stores[data.table.store[episode]][int(data.table.number[episode])]
            rows[found.task].append(found.obs.astype(np.float64))
    return {name: (np.concatenate(own).mean(0), np.concatenate(own).std(0)) for name, own in rows.items()}


def test_a_store_and_a_scan_of_its_rows_agree_to_the_bit(mixed_store, version_1, notices, read_rows):
    from_store = data_of(mixed_store).observation_statistics()
    assert (notices, read_rows) == ([], [])
    scanned = data_of(version_1(mixed_store)).observation_statistics()
    assert set(read_rows) == {"obs"}
    assert from_store == scanned
    for name, (mean, std) in in_float64([mixed_store], data_of(mixed_store)).items():
        np.testing.assert_allclose(from_store[name][0], mean, rtol=1e-12)
        np.testing.assert_allclose(from_store[name][1], std, rtol=1e-9)


def test_a_store_of_version_1_is_scanned_once_and_says_so(notices, read_rows):
    data = data_of(OLD, val_fraction=0)
    first = data.observation_statistics()
    (said,) = notices
    assert f"{str(OLD)!r} has format version 1" in said
    assert "rows of 6 episodes are read" in said
    assert len(read_rows) == 6
    assert data.observation_statistics() == first
    assert (len(notices), len(read_rows)) == (1, 6)
    for name, (mean, std) in in_float64([OLD], data).items():
        np.testing.assert_allclose(first[name][0], mean, rtol=1e-12)
        np.testing.assert_allclose(first[name][1], std, rtol=1e-9)


def test_stores_of_both_versions_are_used_together(make_store, version_1, notices, read_rows):
    episodes = [("cup-catch", 30), ("walker-walk", 20), ("cup-catch", 25)] * 2
    new, old = make_store(episodes, name="new.h5"), version_1(make_store(episodes[:4], name="to_be_old.h5"))
    data = data_of(old, new, tasks=["cup-catch"], val_fraction=0.2)
    found = data.observation_statistics()
    assert len(notices) == 1
    assert 0 < len(read_rows) <= 3  # the episodes of the old store that are trained on
    mean, std = in_float64([old, new], data)["cup-catch"]
    np.testing.assert_allclose(found["cup-catch"][0], mean, rtol=1e-12)
    np.testing.assert_allclose(found["cup-catch"][1], std, rtol=1e-9)


def test_blocks_of_episodes_change_nothing(mixed_store, monkeypatch):
    whole = data_of(mixed_store).observation_statistics()
    moments = EpisodeStore(mixed_store).observation_moments()
    monkeypatch.setattr(store, "_BLOCK_EPISODES", 7)
    assert data_of(mixed_store).observation_statistics() == whole
    for one, other in zip(moments, EpisodeStore(mixed_store).observation_moments(), strict=True):
        np.testing.assert_array_equal(one, other)


def write_moments(path, name, episode, value):
    """Put a number into a column of statistics, as a program that computes them wrongly would have written it."""
    with h5py.File(path, "r+") as file:
        column = file[f"episode/{name}"]
        column[(episode, 1) if column.ndim == 2 else episode] = value
        seal(file)


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("obs_sum", np.nan, r"observations of episode 2 \('cup-catch'\) are not finite.*data check"),
        ("obs_m2", np.inf, r"observations of episode 2 \('cup-catch'\) are not finite.*data check"),
        ("obs_count", 3, "episode/obs_count is not the rows of episode 2.*data check"),
    ],
)
def test_statistics_that_cannot_be_are_refused(make_store, name, value, says):
    path = make_store([("cup-catch", 30)] * 4)
    write_moments(path, name, 2, value)
    with pytest.raises(LitPWMError, match=rf"{path.name}.*{says}"):
        data_of(path, val_fraction=0).observation_statistics()


def test_statistics_that_were_changed_since_they_were_written_are_refused(make_store):
    path = make_store([("cup-catch", 30)] * 4)
    with h5py.File(path, "r+") as file:
        file["episode/obs_m2"][3, 2] *= 1.5
    with pytest.raises(LitPWMError, match=r"episode/obs_m2: not the checksum of what was written"):
        data_of(path, val_fraction=0).observation_statistics()


def test_a_large_mean_keeps_its_digits(tmp_path):
    """Naive sums of squares would lose all of a deviation of 1 about a mean of 1e7; float32 holds 1 there."""
    path, rng = tmp_path / "far.h5", np.random.default_rng(0)
    with EpisodeWriter(path, tasks={"a": (1, 1)}) as writer:
        for _ in range(5):
            obs = (1e7 + rng.integers(-2, 3, (201, 1))).astype(np.float32)
            writer.append(task="a", obs=obs, action=np.zeros((200, 1)), reward=np.zeros(200))
    ((mean, std),) = data_of(path, val_fraction=0).observation_statistics().values()
    rows = np.concatenate([episode.obs for episode in EpisodeStore(path)]).astype(np.float64)
    assert mean[0] == pytest.approx(rows.mean(), rel=1e-15)
    assert std[0] == pytest.approx(rows.std(), rel=1e-9)


@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`, callbacks")
def test_a_resumed_run_scans_nothing_again(mixed_store, version_1, tmp_path, notices):
    old = version_1(mixed_store)
    sizes = {"latent_dim": 16, "task_dim": 4, "dynamics": partial(MLPDynamics, hidden_dim=16)}

    def run(updates, ckpt_path=None):
        module = WorldModelPretraining(world_model=WorldModelOptions(**sizes))
        return fit(module, data_of(old, batch_size=8), updates, ckpt_path=ckpt_path, limit_val_batches=0)

    first = run(1)
    assert len(notices) == 1
    first.save_checkpoint(tmp_path / "first.ckpt")
    second = run(2, tmp_path / "first.ckpt")
    assert len(notices) == 1
    before, after = (trainer.lightning_module.world_model.obs_std for trainer in (first, second))
    assert torch.equal(before, after)
    assert (before != 1).any()
