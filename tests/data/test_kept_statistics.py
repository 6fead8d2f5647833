"""What a store keeps of its tasks is what its episodes give, by whichever writer; older stores are computed from."""

import json
import re

import h5py
import numpy as np
import pytest
from sealing import seal

from datamodules import EpisodeStore, store_statistics
from datamodules.check import check, info
from datamodules.importers.importer import ImportedEpisode, ImportedTask, Plan
from datamodules.info import statistics
from datamodules.layout import COMPUTED_ATTRIBUTES, EPISODE_COLUMNS, ROW_COLUMNS, observation_moments
from datamodules.plan_writing import Output, write_stores
from datamodules.reworking import merge, split, subset
from lit_pwm.cli.main import run as command

EPISODES = [("walker-walk", 9), ("cup-catch", 5), ("walker-walk", 4), ("cup-catch", 8), ("walker-walk", 6)]


def assert_keeps(path):
    """The statistics of a store against those of its episodes, by plain numpy."""
    store = EpisodeStore(path)
    kept, episodes = store.statistics, list(store)
    for number, (name, (obs_dim, _)) in enumerate(store.tasks.items()):
        own = [episode for episode in episodes if episode.task == name]
        counts = kept.task_episodes, kept.task_transitions, kept.task_terminated
        assert [int(values[number]) for values in counts] == [
            len(own), sum(len(episode) for episode in own), sum(episode.terminated for episode in own),
        ]  # fmt: skip
        if not own:
            assert not any(values[number].any() for values in kept.arrays().values())
            continue
        returns = np.array([episode.reward.astype(np.float64).sum() for episode in own])
        expected = [returns.mean(), returns.std(), returns.min(), returns.max()]
        np.testing.assert_allclose(kept.return_statistics[number], expected, rtol=1e-12)
        assert kept.return_histogram[number].tolist() == np.histogram(returns, 10)[0].tolist()
        rows = np.concatenate([episode.obs[: len(episode) + episode.last_obs_known] for episode in own], dtype=float)
        np.testing.assert_allclose(kept.obs_mean[number, :obs_dim], rows.mean(axis=0), rtol=1e-11, atol=1e-12)
        np.testing.assert_allclose(kept.obs_std[number, :obs_dim], rows.std(axis=0), rtol=1e-11, atol=1e-12)
        assert not kept.obs_mean[number, obs_dim:].any()
    assert check(path) == []


def flagged_store(path):
    """Every second episode ended by termination, without its last observation, whose repetition lies far away."""

    def episode(number):
        rng = np.random.default_rng(number)
        obs = rng.normal(size=(5 + number, 3))
        if number % 2:
            obs[-2:] = 1000.0
        action = rng.uniform(-1, 1, (4 + number, 1))
        return ImportedEpisode(obs, action, np.ones(4 + number), bool(number % 2), not number % 2)

    plan = Plan(
        {"a": ImportedTask(3, 1)}, np.arange(4, 10), np.zeros(6, int), ["x"] * 6, lambda n: map(episode, n), 1, []
    )
    write_stores([Output(path, plan, np.arange(6), {"verb": "test"})], progress=False)
    return path


@pytest.mark.parametrize("block", [65_536, 2])
def test_every_writer_keeps_them(make_store, tmp_path, monkeypatch, block):
    monkeypatch.setattr(store_statistics, "_BLOCK_EPISODES", block)
    made = make_store(EPISODES, terminated=[1, 2])
    assert_keeps(made)
    other = make_store([("cartpole-swingup", 7)], name="other.h5")
    assert_keeps(merge([made, other], tmp_path / "merged.h5", progress=False).path)
    assert_keeps(subset(made, tmp_path / "some.h5", min_return=15.0, progress=False).path)
    for part in split(made, [tmp_path / "one.h5", tmp_path / "two.h5"], progress=False):
        assert_keeps(part.path)
    assert_keeps(flagged_store(tmp_path / "flagged.h5"))


def test_an_observation_that_was_not_recorded_is_in_no_statistics(tmp_path):
    store = EpisodeStore(flagged_store(tmp_path / "s.h5"))
    count, total, _ = store.observation_moments()
    assert count.tolist() == [5, 5, 7, 7, 9, 9]  # rows without the repeated one
    assert total[1, 0] == pytest.approx(store[1].obs[:-1, 0].astype(float).sum())


def test_stores_that_counted_the_repeated_observation_are_sound(tmp_path):
    path = flagged_store(tmp_path / "s.h5")
    with h5py.File(path, "r+") as file:
        for number in (1, 3, 5):
            start, rows = (int(file[f"episode/{name}"][number]) for name in ("offset", "length"))
            file["episode/obs_count"][number] = rows
            moments = observation_moments(file["obs"][start : start + rows])
            file["episode/obs_sum"][number], file["episode/obs_m2"][number] = moments
        seal(file)
    without_statistics(path)
    assert check(path) == []
    assert EpisodeStore(path).observation_moments()[0].tolist() == [5, 6, 7, 8, 9, 10]
    assert_keeps(merge([path], tmp_path / "anew.h5", progress=False).path)


def without_statistics(path):
    with h5py.File(path, "r+") as file:
        for name in COMPUTED_ATTRIBUTES:
            del file.attrs[name]
    return path


def test_a_store_that_keeps_none_gives_the_same(make_store, tmp_path, capsys):
    path = make_store(EPISODES, terminated=[1])
    whole, command_output = EpisodeStore(path), []
    for store in (path, without_statistics(path)):
        assert command(["data", "info", str(store)]) == 0
        command_output.append(re.sub(r"[\d.]+ MB", "", capsys.readouterr().out))
    assert command_output[0] == command_output[1]
    older = EpisodeStore(path)
    assert older.statistics is None
    assert (older.hash, older.content) == (whole.hash, whole.content)
    for name, values in statistics(older).arrays().items():
        np.testing.assert_array_equal(values, getattr(whole.statistics, name), name)
    assert check(path) == []


def test_a_store_of_version_1_is_computed_from(make_store, version_1, capsys):
    path = make_store(EPISODES, terminated=[1])
    old = EpisodeStore(version_1(path))
    for name, values in statistics(old).arrays().items():
        np.testing.assert_allclose(values, getattr(EpisodeStore(path).statistics, name), rtol=1e-12, err_msg=name)
    command(["data", "info", str(old.path)])
    assert "no hash: format version 1 has no checksums" in capsys.readouterr().out


def test_the_hash_is_of_the_content(make_store, tmp_path):
    path = make_store(EPISODES)
    again, other = make_store(EPISODES, name="again.h5"), make_store(EPISODES, name="other.h5", terminated=[3])
    assert path.read_bytes() == again.read_bytes()
    assert EpisodeStore(path).hash == EpisodeStore(again).hash != EpisodeStore(other).hash
    packed = tmp_path / "packed.h5"
    with h5py.File(path) as file, h5py.File(packed, "w") as copy:
        names = [*ROW_COLUMNS, *(f"episode/{name}" for name in EPISODE_COLUMNS[file.attrs["format_version"]])]
        for name in names:
            copy.create_dataset(name, data=file[name][:], dtype=file[name].dtype, compression="gzip")
        copy.attrs.update(dict(file.attrs))
    assert EpisodeStore(packed).hash == EpisodeStore(path).hash
    assert check(packed) == []


def test_info_reads_no_rows_where_statistics_are_kept(make_store, monkeypatch, capsys):
    path = make_store(EPISODES)
    monkeypatch.setattr(EpisodeStore, "column", lambda self, name: pytest.fail(f"{name} was read"))
    assert command(["data", "info", str(path)]) == 0
    said = capsys.readouterr().out
    assert f"SHA-256 {EpisodeStore(path).hash}" in said
    assert re.search(
        r"19 transitions in all; source: .*\n(?: .*\n)? +return: mean 10\.7, std 10\.0, from 0\.0 to 24\.0", said
    ), said


def test_sums_of_rewards_of_pieces_are_called_so(tmp_path, capsys):
    plan = Plan(
        {"a": ImportedTask(2, 1, whole_episodes=False)}, np.array([3]), np.array([0]), ["x"],
        lambda numbers: iter([ImportedEpisode(np.zeros((4, 2)), np.zeros((3, 1)), np.ones(3))]), 1, [],
    )  # fmt: skip
    write_stores([Output(tmp_path / "s.h5", plan, np.arange(1), {"verb": "test"})], progress=False)
    command(["data", "info", str(tmp_path / "s.h5")])
    said = capsys.readouterr().out
    assert "a: 1 pieces of episodes of 3 transitions" in said
    assert "return of pieces: mean 3.0" in said


def test_how_a_store_was_made_lies_beside_it(tmp_path):
    arguments = ["--tasks", "cup-catch", "--episodes", "1", "--behaviour", "random", "--workers", "1", "--seed", "5"]
    assert command(["collect", *arguments, "--out", str(tmp_path / "s.h5")]) == 0
    told = json.loads((tmp_path / "s.json").read_text())
    assert {"verb": "collect", "seed": 5, "behaviour": "random", "episodes": 1, "left_out": []}.items() <= told.items()
    assert {"made", "versions"} <= set(told)
    assert info(tmp_path / "s.h5").hash == EpisodeStore(tmp_path / "s.h5").hash


def test_large_means_keep_the_digits_of_deviations(tmp_path):
    rng = np.random.default_rng(0)
    totals, counts, squares, rows = [], [], [], []
    for _ in range(50):
        values = 1e6 + rng.normal(size=(20, 2))
        rows.append(values)
        counts.append(20)
        totals.append(values.sum(axis=0))
        squares.append(((values - values.mean(axis=0)) ** 2).sum(axis=0))
    blocks = [
        (
            first,
            np.array(counts[first : first + 7]),
            np.array(totals[first : first + 7]),
            np.array(squares[first : first + 7]),
        )
        for first in range(0, 50, 7)
    ]
    _, deviation = store_statistics._scales(blocks, np.zeros(50, int), 1, 2)
    np.testing.assert_allclose(deviation[0], np.concatenate(rows).std(axis=0), rtol=1e-7)


def test_the_same_episodes_are_the_same_bytes_whatever_wrote_them(make_store, tmp_path):
    one = make_store([("cartpole-swingup", 4), *EPISODES], terminated=[2])
    assert merge([one], tmp_path / "merged.h5", progress=False).path.read_bytes() == one.read_bytes()
