"""LeRobot's data sets: one that its own writer wrote (version 3), and files in the layout of version 2."""

import json
import tarfile
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet as parquet
import pytest
from foreign_rows import shown

from datamodules.importers.lerobot import LeRobot
from lit_pwm.errors import LitPWMError

FIXTURES = Path(__file__).parents[1] / "fixtures_lerobot" / "data_sets.tar.xz"
LENGTHS = [2 + episode % 4 for episode in range(12)]
"""Frames of the episodes in the fixture; numbers of row 100 e + t of episode e, as write_lerobot.py makes them."""


@pytest.fixture
def version_3(tmp_path) -> Path:
    with tarfile.open(FIXTURES) as file:
        file.extractall(tmp_path, filter="data")
    return tmp_path / "v3"


@pytest.fixture
def version_2(tmp_path, rows):
    """A data set of version 2.1, of episodes of so many frames each and columns beside those that there always are."""

    def make(lengths, columns=None, task_index=None, **dropped):
        path, arrays = tmp_path / "v2", rows(sum(lengths))
        episode = np.repeat(np.arange(len(lengths)), lengths)
        held = {
            "observation.state": arrays["observations"],
            "action": arrays["actions"],
            "next.reward": arrays["rewards"],
            "episode_index": episode,
            "frame_index": np.concatenate([np.arange(length) for length in lengths]),
            "task_index": np.zeros(len(episode), int) if task_index is None else np.array(task_index)[episode],
        }
        held |= columns or {}
        held = {name: values for name, values in held.items() if name not in dropped.get("without", ())}
        features = {
            name: {"dtype": str(values.dtype), "shape": list(values.shape[1:]) or [1]} for name, values in held.items()
        }
        features["observation.image"] = {"dtype": "video", "shape": [8, 8, 3]}
        info = {"codebase_version": "v2.1", "total_episodes": len(lengths), "total_frames": len(episode)}
        (path / "meta").mkdir(parents=True)
        (path / "meta/info.json").write_text(json.dumps(info | {"features": features, "fps": 10}))
        for number in range(len(lengths)):
            mine = {
                name: list(values[episode == number]) if values.ndim > 1 else values[episode == number]
                for name, values in held.items()
            }
            target = path / f"data/chunk-{number // 5:03d}/episode_{number:06d}.parquet"
            target.parent.mkdir(parents=True, exist_ok=True)
            parquet.write_table(pyarrow.table(mine), target)
        return path

    return make


def test_its_own_writer_s_data_set(version_3, planned, episodes_of):
    """Without an observation after the last frame, each episode gives up its last frame's action."""
    assert LeRobot().recognises(version_3)
    plan, episodes = planned(LeRobot(), version_3), episodes_of(LeRobot(), version_3)
    assert plan.length.tolist() == [frames - 1 for frames in LENGTHS]
    for number, (episode, frames) in enumerate(zip(episodes, LENGTHS, strict=True)):
        row = 100 * number + np.arange(frames)
        np.testing.assert_array_equal(episode.obs, np.stack([row, 10 * row], axis=1))
        np.testing.assert_array_equal(episode.action, np.stack([row, -row], axis=1)[:-1] / 2048)
        np.testing.assert_array_equal(episode.reward, row[:-1] / 64)
        assert (episode.terminated, episode.last_obs_known) == (False, True)
    assert [e.obs[0, 0] for e in plan.episodes(np.array([2, 10, 11]))] == [200, 1000, 1100]


def test_done_means_terminated_only_where_that_is_said(version_3, episodes_of):
    """`next.truncated` never does. A terminated episode keeps its last frame, whose next observation is not known."""
    for number, episode in enumerate(episodes_of(LeRobot(), version_3, done="terminated")):
        odd = number % 2 == 1
        assert (episode.terminated, episode.last_obs_known) == (odd, not odd)
        assert len(episode.reward) == LENGTHS[number] - (not odd)
        if odd:
            np.testing.assert_array_equal(episode.obs[-1], episode.obs[-2])
            assert episode.reward[-1] == (100 * number + LENGTHS[number] - 1) / 64


def test_columns_of_observations_are_side_by_side_in_the_order_given(version_3, planned, episodes_of):
    columns = ("observation.goal", "observation.state")
    task = planned(LeRobot(), version_3, obs_columns=columns).tasks["t"]
    assert (task.obs_dim, task.spec) == (3, {"obs_order": list(columns)})
    row = 100 + np.arange(3)
    obs = episodes_of(LeRobot(), version_3, obs_columns=columns)[1].obs
    np.testing.assert_array_equal(obs, np.stack([-row, row, 10 * row], axis=1))


def test_version_2_has_a_file_for_each_episode(version_2, episodes_of):
    """Twelve files in three folders, whose order by name would be the same only below ten."""
    lengths = [2, 3, 4] * 4
    path = version_2(lengths)
    assert LeRobot().recognises(path)
    first = np.cumsum(lengths) - lengths
    assert shown(episodes_of(LeRobot(), path)) == [
        (list(range(start, start + frames)), list(range(start, start + frames - 1)), False, True)
        for start, frames in zip(first, lengths, strict=True)
    ]


def test_files_come_in_the_order_of_numbers(version_2, episodes_of):
    path = version_2([2] * 12)
    for file in (path / "data").rglob("*.parquet"):
        file.rename(file.with_name(f"episode_{int(file.stem[-6:])}.parquet"))
    assert [episode.obs[0, 0] for episode in episodes_of(LeRobot(), path)] == [2 * number for number in range(12)]


@pytest.mark.parametrize(
    ("reward_row", "done", "expected"),
    [
        ("same", None, [([0, 1, 2], [0, 1], False, True), ([3, 4, 5], [3, 4], False, True)]),
        ("same", "terminated", [([0, 1, 2], [0, 1], False, True), ([3, 4, 5, 5], [3, 4, 5], True, False)]),
        ("next", None, [([0, 1, 2], [0, 1], False, True), ([3, 4, 5], [3, 4], False, True)]),
        ("next", "terminated", [([0, 1, 2], [0, 1], False, True), ([3, 4, 5], [3, 4], True, True)]),
    ],
)
def test_a_column_reward_is_read_as_is_said(version_2, rows, episodes_of, reward_row, done, expected):
    """In row t + 1 stands r_t: every episode keeps T − 1, and a terminated one has a real last observation."""
    rewards = rows(6)["rewards"]
    if reward_row == "next":
        rewards = np.concatenate([[9.0], rewards[:-1]])  # the first row's is of nothing
    columns = {"reward": rewards, "next.done": np.array([0, 0, 0, 0, 0, 1], bool)}
    path = version_2([3, 3], columns, without=("next.reward",))
    with pytest.raises(LitPWMError, match=r"column `reward`.*--reward-row same.*--reward-row next"):
        episodes_of(LeRobot(), path)
    assert shown(episodes_of(LeRobot(), path, reward_row=reward_row, done=done)) == expected


def test_an_episode_of_one_frame_has_nothing_left_unless_it_terminated(version_2, planned, episodes_of):
    columns = {"next.done": np.array([0, 0, 0, 1], bool)}
    path = version_2([1, 2, 1], columns)
    assert shown(episodes_of(LeRobot(), path)) == [([1, 2], [1], False, True)]
    assert [notice[:28] for notice in planned(LeRobot(), path).notices] == ["2 episodes had nothing left "]
    path.rename(path.with_name("first"))
    kept = episodes_of(LeRobot(), version_2([1, 2, 1], columns), done="terminated")
    assert shown(kept) == [([1, 2], [1], False, True), ([3, 3], [3], True, False)]


def test_several_tasks_are_not_taken_for_one(version_2, planned):
    path = version_2([2, 3, 2], task_index=[4, 0, 4])
    with pytest.raises(LitPWMError, match=r"has 2 tasks \(task_index 0, 4;.*--task A,B"):
        planned(LeRobot(), path)
    plan = planned(LeRobot(), path, task="zero,four")
    assert [list(plan.tasks)[number] for number in plan.task] == ["four", "zero", "four"]


def test_done_before_the_last_row_is_refused_with_the_row(version_2, episodes_of):
    path = version_2([3, 4], {"next.done": np.array([0, 0, 1, 0, 1, 0, 1], bool)})
    with pytest.raises(LitPWMError, match=r"set in row 1 of .*episode_000001.*frame 1 of episode 1.*to frame 3"):
        episodes_of(LeRobot(), path, done="terminated")
    assert len(episodes_of(LeRobot(), path)) == 2


def rewritten(path, file, change):
    target = path / file
    table = parquet.read_table(target)
    parquet.write_table(change(table), target)


def test_what_cannot_be_imported_is_refused_by_name(version_2, version_3, planned, episodes_of):
    path = version_2([3, 3])
    info = json.loads((path / "meta/info.json").read_text())

    def refused(match, changes=None, **options):
        (path / "meta/info.json").write_text(json.dumps(info | (changes or {})))
        with pytest.raises(LitPWMError, match=match):
            episodes_of(LeRobot(), path, **options)
        (path / "meta/info.json").write_text(json.dumps(info))

    without = {name: one for name, one in info["features"].items() if name != "next.reward"}
    refused("has no rewards", {"features": without})
    refused("is of LeRobot's version v1.6; 2 and 3 are read", {"codebase_version": "v1.6"})
    refused("has no column 'pose'; its columns of numbers are observation.state", obs_columns=("pose",))
    refused("'observation.image' of .* is video", obs_columns=("observation.image",))
    refused("has no `next.done`, of which --done speaks", done="terminated")
    refused("has no column `reward`, of which --reward-row", reward_row="same")
    refused("names no environment.*--task", task=None)
    refused("which bounds.*--action-bounds", action_bounds=None)
    refused("says that there are 3 episodes, and 2 are there", {"total_episodes": 3})
    refused("says that there are 7 frames, and 6 are there", {"total_frames": 7})
    with pytest.raises(LitPWMError, match="one at a time"):
        planned(LeRobot(), path, version_3)
    second = "data/chunk-000/episode_000001.parquet"
    rewritten(path, second, lambda table: table.take([1, 0, 2]))
    refused("is frame 1 of episode 1, and stands where frame 0 should")
    rewritten(path, second, lambda table: table.take([1, 0, 2]).set_column(
        table.column_names.index("episode_index"), "episode_index", pyarrow.array([0, 0, 0])
    ))  # fmt: skip
    refused("Episode 0 in .* stands in two places")
    (path / second).write_bytes(b"no Parquet")
    refused("cannot be read as parquet")


def test_missing_values_and_ragged_lists_are_refused(version_2, episodes_of):
    path, first = version_2([3]), "data/chunk-000/episode_000000.parquet"
    for values, match in (
        ([[1.0, 2.0], None, [3.0, 4.0]], "has 1 missing values"),
        ([[1.0, 2.0], [3.0], [4.0, 5.0, 6.0]], "lists of different lengths"),
        (["a", "b", "c"], "holds string, where numbers are expected"),
    ):
        rewritten(
            path,
            first,
            lambda table, values=values: table.set_column(
                table.column_names.index("observation.state"), "observation.state", pyarrow.array(values)
            ),
        )
        with pytest.raises(LitPWMError, match=match):
            episodes_of(LeRobot(), path)


def test_version_3_may_spread_episodes_over_files(version_3, episodes_of):
    """Also where the files' numbers do not rise with the episodes'."""
    whole = episodes_of(LeRobot(), version_3)
    file = version_3 / "data/chunk-000/file-000.parquet"
    table = parquet.read_table(file)
    cut = sum(LENGTHS[:5])
    parquet.write_table(table.slice(cut), file)
    (version_3 / "data/chunk-001").mkdir()
    parquet.write_table(table.slice(0, cut), version_3 / "data/chunk-001/file-000.parquet")
    for one, other in zip(whole, episodes_of(LeRobot(), version_3), strict=True):
        np.testing.assert_array_equal(one.obs, other.obs)
        np.testing.assert_array_equal(one.reward, other.reward)
