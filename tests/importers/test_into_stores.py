"""Other formats' files into stores by the command line, and what batches say of missing last observations."""

import tarfile
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from datamodules import EpisodeStore, MultitaskDataModule
from datamodules.check import check
from lit_pwm.cli.main import run

FIXTURES = Path(__file__).parents[1]


@pytest.fixture
def d4rl(tmp_path, rows):
    """Episodes of 6 rows that terminate, and of 4 that do not, in turn; 4 of each."""
    path, marks = tmp_path / "data.hdf5", {name: np.zeros(40, bool) for name in ("terminals", "timeouts")}
    marks["terminals"][5::10], marks["timeouts"][9::10] = True, True
    with h5py.File(path, "w") as file:
        for name, values in (rows(40) | marks).items():
            file[name] = values
    return path


@pytest.fixture
def into(tmp_path):
    def make(*arguments, code=0):
        out = tmp_path / "store.h5"
        assert run(["data", "import", *map(str, arguments), "--out", str(out)]) == code
        if code:
            return None
        assert check(out) == []
        return EpisodeStore(out)

    return make


def test_d4rl(into, d4rl, capsys):
    store = into(d4rl, "--task", "gym:Own-v0", "--action-bounds", "-2,2")
    assert store.tasks == {"gym:Own-v0": (2, 1)}
    assert store.action_repeat == 1
    assert store.length.tolist() == [6, 3] * 4
    assert store.terminated().tolist() == [True, False] * 4
    assert [episode.last_obs_known for episode in store] == [False, True] * 4
    episode = store[2]
    assert episode.obs[:, 0].tolist() == [10, 11, 12, 13, 14, 15, 15]
    np.testing.assert_allclose(episode.action[:, 0], -np.arange(10, 16) / 2**11, rtol=1e-6)
    assert store.task_specs["gym:Own-v0"] == {
        "make": "gymnasium:make", "kwargs": {"id": "Own-v0"}, "low": [-2.0], "high": [2.0],
    }  # fmt: skip
    assert "8 episodes" in capsys.readouterr().out


def test_bounds_are_applied_and_what_lies_beyond_is_refused_or_clipped(into, d4rl, capsys):
    """Actions reach −38 / 1024 (the last row's own leads nowhere); after a space as after `=`."""
    into(d4rl, "--task", "t", "--action-bounds", "-0.01,0.01", code=2)
    message = " ".join(capsys.readouterr().err.split())
    assert "-0.03710938 in entry 0" in message
    assert "3.710938 in [-1, 1]" in message
    store = into(d4rl, "--task", "t", "--action-bounds=-0.01,0.01", "--clip-actions")
    assert store.clipped_actions == sum(row > 10 and row % 10 != 9 for row in range(40))
    assert store[7].action.min() == -1


def test_rewards_that_a_model_cannot_tell_apart_are_refused_or_clamped(into, d4rl, capsys):
    with h5py.File(d4rl, "r+") as file:
        file["rewards"][[3, 12]] = 3e4, -1e9
    arguments = d4rl, "--task", "t", "--action-bounds", "-2,2"
    into(*arguments, code=2)
    assert "is 30000 in row 3, beyond ±22,025.5" in " ".join(capsys.readouterr().err.split())
    store = into(*arguments, "--clamp-rewards")
    assert store.clamped_rewards == 2
    assert [store[number].reward[row] for number, row in ((0, 3), (2, 2))] == pytest.approx(
        [22025.5, -22025.5], rel=1e-5
    )


def test_what_is_missing_is_asked_for(into, d4rl, capsys):
    into(d4rl, "--action-bounds", "-2,2", code=2)
    assert "--task NAME" in " ".join(capsys.readouterr().err.split())
    into(d4rl, "--task", "t", code=2)
    assert "--action-bounds LOW,HIGH" in " ".join(capsys.readouterr().err.split())
    into(d4rl, "--task", "t", "--action-bounds", "-2,2", "--masks", "terminated", code=2)
    assert "--masks is not for the format d4rl" in " ".join(capsys.readouterr().err.split())


def test_ogbench(into, tmp_path, rows):
    path = tmp_path / "data.npz"
    ends = np.array([0, 0, 0, 1] * 3, np.float32)
    masks = np.array([1, 0, 1, 1] + [1] * 8, np.float32)
    np.savez_compressed(path, **rows(12), terminals=ends, masks=masks)
    store = into(path, "--task", "t", "--action-bounds", "-2:2", "--masks", "terminated")
    assert [(len(episode), episode.terminated, episode.last_obs_known) for episode in store] == [
        (2, True, True),
        (3, False, True),
        (3, False, True),
    ]


@pytest.mark.parametrize("storage", ["hdf5", "parquet"])
def test_minari(into, tmp_path, storage):
    with tarfile.open(FIXTURES / "fixtures_minari/data_sets.tar.xz") as file:
        file.extractall(tmp_path, filter="data")
    store = into(tmp_path / f"reaching_{storage}", "--task", "reach")
    assert [len(episode) for episode in store] == [2 + number % 4 for number in range(11)]
    assert store[10].obs[0, 0] == 1000
    assert store.task_specs["reach"] == {
        "low": [-2.0, 0.0],
        "high": [2.0, 1.0],
        "obs_order": ["observation", "goal/z", "goal/kind", "achieved_goal"],
    }
    actions = np.concatenate([episode.action for episode in store])
    assert actions.min(axis=0).max() < -0.5
    assert actions.max(axis=0).min() > 0.5


def test_lerobot(into, tmp_path):
    with tarfile.open(FIXTURES / "fixtures_lerobot/data_sets.tar.xz") as file:
        file.extractall(tmp_path, filter="data")
    options = ("--obs-columns", "observation.state,observation.goal", "--done", "terminated")
    store = into(tmp_path / "v3", "--task", "t", "--action-bounds", "-1,-2:1,2", *options)
    assert store.tasks == {"t": (3, 2)}
    assert [episode.last_obs_known for episode in store] == [True, False] * 6
    assert store.task_specs["t"]["obs_order"] == ["observation.state", "observation.goal"]
    row = 1100 + np.arange(5)
    np.testing.assert_array_equal(store[11].action, np.stack([row / 2048, -row / 4096], axis=1).astype(np.float32))
    assert store[11].terminated


def test_of_no_format(into, tmp_path, capsys):
    (tmp_path / "text").write_text("text")
    into(tmp_path / "text", code=2)
    message = " ".join(capsys.readouterr().err.split())
    assert all(name in message for name in ("tdmpc2", "minari", "lerobot", "d4rl", "ogbench"))


# -- in training -------------------------------------------------------------------------------------------------------
def batches(path, storage="memmap", horizon=3, count=6, **options):
    data = MultitaskDataModule(
        str(path), horizon, batch_size=4, storage=storage, val_fraction=0.0, seed=1, batches_per_epoch=count, **options
    )
    data.setup()
    return list(data.train_dataloader())


@pytest.mark.parametrize("storage", ["memmap", "ram", "device"])
def test_batches_say_which_next_observations_were_recorded(into, d4rl, storage):
    store = into(d4rl, "--task", "t", "--action-bounds", "-2,2")
    seen = set()
    for batch in batches(store.path, storage):
        consistent, valid = batch["consistent"], batch["valid"]
        assert consistent.dtype == torch.bool
        assert consistent.shape == batch["reward"].shape
        row = batch["obs"][:-1, :, 0]
        assert torch.equal(consistent, valid & (row % 10 != 5))  # the row that terminated
        repeated = (batch["obs"][1:] == batch["obs"][:-1]).all(-1)
        assert torch.equal(consistent, valid & ~repeated)
        seen |= set(consistent.flatten().tolist())
    assert seen == {True, False}


def test_a_second_stream_says_it_too(into, d4rl):
    store = into(d4rl, "--task", "t", "--action-bounds", "-2,2")
    for batch in batches(store.path, second={"horizon": 2, "batch_size": 3}):
        second = batch["second"]
        row = second["obs"][:-1, :, 0]
        assert torch.equal(second["consistent"], second["valid"] & (row % 10 != 5))


def test_batches_of_data_that_has_all_last_observations_say_nothing(into, tmp_path, rows):
    path = tmp_path / "data.npz"
    np.savez(path, **rows(12), terminals=np.array([0, 0, 0, 1] * 3))
    store = into(path, "--task", "t", "--action-bounds", "-2,2")
    assert all("consistent" not in batch for batch in batches(store.path, horizon=2))
