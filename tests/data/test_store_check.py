"""Every fault that is planted is found, grouped with its kind, beside the others."""

import h5py
import numpy as np
import pytest

from datamodules import EpisodeStore
from datamodules.check import check, info
from lit_pwm.errors import LitPWMError

EPISODES = [("cartpole-swingup", 4), ("walker-walk", 6), ("cup-catch", 5)]  # rows 0-4, 5-11, 12-17

FAULTS = {
    "obs is not finite: 2 rows in 2 episodes (first: episode 0, row 2)": ("obs", [(2, 1), (7, 20)], np.nan),
    "obs is not 0 in padding columns: 1 rows in 1 episodes (first: episode 0, row 1)": ("obs", [(1, 5)], 1),
    "action is not finite before the last row: 1 rows in 1 episodes (first: episode 1, row 3)": (
        "action", [(8, 5)], np.inf,
    ),
    "action is not NaN in the last row: 1 rows in 1 episodes (first: episode 1, row 6)": ("action", [(11, 3)], 0),
    "action is not 0 in padding columns: 2 rows in 2 episodes (first: episode 0, row 4)": (
        "action", [(4, 1), (13, 2)], np.nan,
    ),
    "reward is not finite before the last row: 1 rows in 1 episodes (first: episode 2, row 0)": (
        "reward", [12], np.nan,
    ),
    "reward is not NaN in the last row: 2 rows in 2 episodes (first: episode 0, row 4)": ("reward", [4, 17], 0),
    "terminated is neither 0 nor 1: 1 rows in 1 episodes (first: episode 2, row 5)": ("terminated", [17], 2),
    "terminated is set before the last row: 1 rows in 1 episodes (first: episode 1, row 0)": ("terminated", [5], 1),
    "episode/task points to no task: 1 of 3 (first: episode 2)": ("episode/task", [2], 3),
}  # fmt: skip


def plant(path, dataset, places, value):
    with h5py.File(path, "r+") as file:
        for place in places:
            file[dataset][place] = value


@pytest.fixture
def store(make_store):
    path = make_store(EPISODES)
    assert check(path) == []
    return path


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_found(store, fault):
    plant(store, *FAULTS[fault])
    assert check(store) == [fault] if "episode/task" not in fault else fault in check(store)


def test_all_faults_are_found_together(store):
    planted = {fault: how for fault, how in FAULTS.items() if "episode/task" not in fault}
    for how in planted.values():
        plant(store, *how)
    assert sorted(check(store)) == sorted(planted)


def test_faults_are_counted_over_blocks_of_rows(make_store, monkeypatch):
    monkeypatch.setattr("datamodules.check._BLOCK_ROWS", 40)
    path = make_store([("cup-catch", 20)] * 10)
    assert check(path) == []
    assert info(path).num_rows == 210
    plant(path, "obs", [(5, 0), (100, 0), (209, 7)], np.inf)
    assert check(path) == ["obs is not finite: 3 rows in 3 episodes (first: episode 0, row 5)"]


@pytest.mark.parametrize(
    ("column", "index", "value", "fault"),
    [
        ("offset", 1, 4, "episode/offset is not where the episode before ends: 1 of 3 (first: episode 1)"),
        ("length", 2, 1, "episode/length holds episodes of fewer than 2 rows: 1 of 3 (first: episode 2)"),
        ("length", 2, 7, "episode/length sums to 19 rows, but there are 18"),
    ],
)
def test_faults_of_the_table(store, column, index, value, fault):
    plant(store, f"episode/{column}", [index], value)
    assert fault in check(store)
    with pytest.raises(LitPWMError, match="data check"):
        EpisodeStore(store)


def test_faults_of_the_structure(store):
    with h5py.File(store, "r+") as file:
        reward = file["reward"][:]
        del file["reward"], file["terminated"], file.attrs["action_repeat"]
        file["reward"] = reward[:-1].astype(np.float64)
    faults = check(store)
    for fault in (
        "the attribute 'action_repeat' is missing",
        "the dataset 'terminated' is missing",
        "reward has type float64, and should have float32",
        "the datasets of rows differ in length: {'obs': 18, 'action': 18, 'reward': 17}",
    ):
        assert fault in faults


def test_faults_of_the_tasks(store):
    with h5py.File(store, "r+") as file:
        file.attrs["task_names"] = np.array(["a", "a", "b"], dtype=h5py.string_dtype())
        file.attrs["obs_dims"] = [5, 25, 8]
    assert check(store)[0] == "task names occur twice: a"
    with h5py.File(store, "r+") as file:
        file.attrs["task_names"] = np.array(["a", "c", "b"], dtype=h5py.string_dtype())
    assert check(store) == ["obs_dims [5, 25, 8] do not fit the width 24 of obs"]


def test_no_store_is_an_error(tmp_path):
    (tmp_path / "x.h5").write_text("")
    for path in ("x.h5", "y.h5"):
        with pytest.raises(LitPWMError):
            check(tmp_path / path)


def test_info_counts(make_store):
    found = info(make_store([*EPISODES, ("cup-catch", 8)], terminated=[3]))
    assert (found.num_episodes, found.num_transitions, found.num_rows) == (4, 23, 27)
    cup = found.tasks["cup-catch"]
    assert (cup.obs_dim, cup.action_dim, cup.terminated) == (8, 2, 1)
    assert cup.sources == {"source 0": 1, "source 1": 1}
    assert cup.lengths.tolist() == [5, 8]
    returns = np.array([2 * 5 + 0.01, 3 * 8 + 0.028])
    np.testing.assert_allclose((cup.mean, cup.std), (returns.mean(), returns.std()), rtol=1e-6)
    np.testing.assert_allclose((cup.least, cup.greatest), returns, rtol=1e-6)
    assert cup.histogram.tolist() == [1, *[0] * 8, 1]
    assert cup.edges[[0, -1]].tolist() == [cup.least, cup.greatest]
