"""Slices of episodes that terminated may run past their ends, into zeros and never into another episode."""

from __future__ import annotations

from collections import Counter

import h5py
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numbered_episodes import TASKS, write_ends

from datamodules import EpisodeStore, MultitaskDataModule, SliceSampler
from datamodules.second_stream import SecondStream
from lit_pwm.errors import LitPWMError

MARKS = ("terminated", "valid", "consistent")
NAMES = list(TASKS)


def expected_window(episode, start, horizon, obs_dim, action_dim):
    """A slice by the definition, row after row."""
    length = len(episode.action)
    obs, action = np.zeros((horizon + 1, obs_dim)), np.zeros((horizon, action_dim))
    reward, marks = np.zeros(horizon), {name: np.zeros(horizon, bool) for name in MARKS}
    obs[0, : episode.obs.shape[1]] = episode.obs[start]
    for t in range(horizon):
        row = start + t
        if row < length:
            action[t, : episode.action.shape[1]], reward[t] = episode.action[row], episode.reward[row]
            obs[t + 1, : episode.obs.shape[1]] = episode.obs[row + 1]
            marks["valid"][t] = True
            marks["terminated"][t] = episode.terminated and row == length - 1
            marks["consistent"][t] = row < length - 1 or episode.last_obs_known
    return {"obs": obs, "action": action, "reward": reward, **marks}


def assert_right(batch, stores, horizon):
    """Every slice is that of the episode and row that its first observation names."""
    episodes = [episode for store in stores for episode in store]
    for b in range(len(batch["task"])):
        number, start = divmod(int(batch["obs"][0, b, 0]), 1000)
        episode = next(e for e in episodes if int(e.obs[0, 0]) == 1000 * number)
        assert start < len(episode.action)  # the last row is no start
        wanted = expected_window(episode, start, horizon, batch["obs"].shape[-1], batch["action"].shape[-1])
        for name, values in wanted.items():
            np.testing.assert_array_equal(batch[name][:, b].numpy(), values, err_msg=name)


def datamodule(stores, **options):
    settings = {"store": stores, "horizon": 4, "batch_size": 6, "batches_per_epoch": 4, "val_fraction": 0.3, "seed": 0}
    data = MultitaskDataModule(**settings | options)
    data.setup()
    return data


def same(one, other):
    assert one.keys() == other.keys()
    return all(torch.equal(one[key], other[key]) for key in one)


ENDS = st.booleans().flatmap(lambda ended: st.tuples(st.just(ended), st.booleans() if ended else st.just(True)))
EPISODES = st.lists(
    st.tuples(st.sampled_from(NAMES), st.integers(1, 9), ENDS).map(lambda e: (*e[:2], *e[2])), min_size=2, max_size=8
)


@settings(max_examples=12, deadline=None)
@given(EPISODES, st.integers(1, 12), st.sampled_from(["transitions", "tasks"]), st.integers(0, 99))
def test_slices_are_those_of_the_definition_wherever_rows_live(tmp_path_factory, episodes, horizon, balance, seed):
    """Of two stores, of which the second ends in an episode that terminated: behind it the file has no rows."""
    folder = tmp_path_factory.mktemp("random")
    episodes = [*episodes, (NAMES[seed % 3], 2, True, False)]
    middle = len(episodes) // 2
    stores = [write_ends(folder / "a.h5", episodes[:middle]), write_ends(folder / "b.h5", episodes[middle:], middle)]
    kept = [name for name in NAMES if any(e[0] == name and (e[2] or e[1] >= horizon) for e in episodes)]
    options = {"tasks": kept, "horizon": horizon, "balance": balance, "seed": seed, "batch_size": 2, "val_fraction": 0}
    batches = list(datamodule(stores, **options).train_dataloader())
    for batch in batches:
        assert all(torch.isfinite(batch[name]).all() for name in ("obs", "action", "reward"))
        assert_right(batch, [EpisodeStore(path) for path in stores], horizon)
    for storage in ("ram", "device"):
        other = datamodule(stores, storage=storage, **options)
        assert all(same(a, b) for a, b in zip(batches, other.train_dataloader(), strict=True))


def test_all_rows_but_the_last_start_a_slice_of_an_episode_that_terminated():
    lengths, terminated, horizon = [3, 9, 4, 1, 5], [True, False, False, True, True], 4
    sampler = SliceSampler(lengths, horizon, terminated=terminated)
    found = sampler.locate(np.arange(sampler.num_windows))
    starts = {0: range(3), 1: range(6), 2: range(1), 3: range(1), 4: range(5)}
    assert list(zip(*(column.tolist() for column in found), strict=True)) == [
        (e, t) for e, own in starts.items() for t in own
    ]
    by_task = SliceSampler(lengths, horizon, [1, 0, 0, 1, 2], "tasks", terminated=terminated)
    counts = Counter(e for step in range(300) for e in by_task.sample(step, 10).episode.tolist())
    shares = np.array([counts[e] for e in range(5)]) / 3000
    np.testing.assert_allclose(shares, [1 / 4, 2 / 7, 1 / 21, 1 / 12, 1 / 3], atol=0.03)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(1, 12), min_size=1, max_size=8),
    st.integers(1, 8),
    st.sampled_from(["transitions", "tasks"]),
    st.integers(0, 99),
)
def test_without_terminations_the_draws_are_those_of_before(lengths, horizon, balance, seed):
    lengths = [*lengths, 20]
    tasks = [e % 2 for e in range(len(lengths))]
    plain = SliceSampler(lengths, horizon, tasks, balance, seed)
    told = SliceSampler(lengths, horizon, tasks, balance, seed, terminated=[False] * len(lengths))
    assert plain.num_windows == told.num_windows == sum(max(length - horizon + 1, 0) for length in lengths)
    for one, other in ((plain.sample(3, 6), told.sample(3, 6)), (plain.spread(7), told.spread(7))):
        assert all(map(np.array_equal, one, other))


@pytest.fixture(scope="module")
def ended(tmp_path_factory):
    """A store of two tasks, one with episodes that terminated, most shorter than a slice; and one of another task."""
    folder = tmp_path_factory.mktemp("ended")
    some = [("walker-walk", 2 + n % 7, n % 3 > 0, n % 2 > 0 or n % 3 == 0) for n in range(12)]
    some += [("cup-catch", 12 + n, False, True) for n in range(6)]
    others = [("cartpole-swingup", 20 + n, False, True) for n in range(6)]
    return write_ends(folder / "some.h5", some), write_ends(folder / "none.h5", others, 18)


def test_every_batch_says_what_there_is_of_validation_and_of_tasks_without_terminations_too(ended):
    """Of two stores, one of which has none, of both streams, and of validation, whose slices run past ends too."""
    opened = [EpisodeStore(path) for path in ended]
    second = SecondStream(horizon=7, batch_size=5, tasks=["cartpole-swingup", "walker-walk"])
    data = datamodule(list(ended), second=second, val_horizon=6)
    train, held = list(data.train_dataloader()), list(data.val_dataloader())
    assert data.has_terminations
    assert train
    assert held
    for batches, horizon in ((train, 4), (held, 6), ([batch["second"] for batch in train], 7)):
        assert not torch.cat([batch["valid"] for batch in batches], 1).all()
        for batch in batches:
            assert [(batch[name].dtype, tuple(batch[name].shape)) for name in MARKS] == [
                (torch.bool, (horizon, len(batch["task"])))
            ] * 3
            assert_right(batch, opened, horizon)
    first = datamodule(list(ended), val_horizon=6)
    for one, other in zip(first.train_dataloader(), train, strict=True):
        assert same(one, {key: value for key, value in other.items() if key != "second"})


def test_a_second_stream_with_terminations_marks_the_first_streams_batches_too(ended):
    """A model that learns of both has one kind of batch; what is drawn does not change."""
    second = SecondStream(horizon=5, batch_size=5, stores=[ended[0]])
    alone, both = datamodule([ended[1]]), datamodule([ended[1]], second=second)
    for plain, batch in zip(alone.train_dataloader(), both.train_dataloader(), strict=True):
        assert {"terminated", "valid"} <= batch.keys() - plain.keys()
        assert "valid" in batch["second"]
        assert same(plain, {key: batch[key] for key in plain})
        assert batch["valid"].all()
        assert not batch["terminated"].any()
    assert all("valid" in batch for batch in both.val_dataloader())


def test_a_second_stream_of_more_episodes_knows_how_the_firsts_end(ended):
    second = SecondStream(horizon=5, batch_size=20, stores=list(ended))
    for batch in datamodule([ended[0]], tasks=["walker-walk"], second=second).train_dataloader():
        assert_right(batch["second"], [EpisodeStore(path) for path in ended], 5)


def test_without_terminations_batches_have_no_marks(ended):
    """Nor where only tasks without are chosen from a store that has some."""
    for data in (datamodule([ended[1]]), datamodule([ended[0]], tasks=["cup-catch"])):
        assert not data.has_terminations
        for batch in (*data.train_dataloader(), *data.val_dataloader()):
            assert batch.keys() == {"obs", "action", "reward", "task"}


def test_columns_read_no_further_than_they_are_told(ended, tmp_path, monkeypatch):
    """A run's last row stands for those behind it, in memory as in chunks."""
    chunked = tmp_path / "chunked.h5"
    with h5py.File(ended[0]) as source, h5py.File(chunked, "w") as target:
        target.attrs.update(source.attrs)
        source.copy("episode", target)
        for name in ("obs", "action", "reward", "terminated"):
            target.create_dataset(name, data=source[name][:], chunks=True)
        rows = source["obs"][:]
    starts, last = np.array([0, len(rows) - 2, 3, 7]), np.array([2, len(rows) - 1, 3, 30])
    wanted = np.stack([[rows[min(s + t, end), :4] for s, end in zip(starts, last, strict=True)] for t in range(6)])
    stores = [EpisodeStore(chunked), EpisodeStore(ended[0])]
    monkeypatch.setattr("datamodules.columns._physical_memory", lambda: 10_000)
    stores.append(EpisodeStore(ended[0]))
    for store in stores:
        np.testing.assert_array_equal(store.column("obs").windows(starts, 6, 4, last), wanted)


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.filterwarnings("ignore:The rows of")
def test_workers_and_ways_of_reading_give_the_same(ended, tmp_path, monkeypatch):
    stores = list(ended)
    wanted = list(datamodule(stores).train_dataloader())
    chunked = tmp_path / "chunked.h5"
    with h5py.File(ended[0]) as source, h5py.File(chunked, "w") as target:
        target.attrs.update(source.attrs)
        source.copy("episode", target)
        for name in ("obs", "action", "reward", "terminated"):
            target.create_dataset(name, data=source[name][:], chunks=True, compression=4)
    found = {"workers": datamodule(stores, num_workers=2), "chunked": datamodule([str(chunked), ended[1]])}
    for name, data in found.items():
        assert all(same(a, b) for a, b in zip(wanted, data.train_dataloader(), strict=True)), name
    monkeypatch.setattr("datamodules.columns._physical_memory", lambda: 10_000)
    large = datamodule(stores)
    assert all(same(a, b) for a, b in zip(wanted, large.train_dataloader(), strict=True))
    monkeypatch.setattr("datamodules.store._BLOCK_TERMINATED", 7)
    np.testing.assert_array_equal(EpisodeStore(ended[0]).terminated(), large._stores[0].terminated())


def test_ranks_share_one_batch(ended, monkeypatch):
    whole = list(datamodule(list(ended), batch_size=8).train_dataloader())
    shares = []
    for rank in (0, 1):
        monkeypatch.setattr(MultitaskDataModule, "_ranks", lambda self, rank=rank: (rank, 2))
        shares.append(list(datamodule(list(ended), batch_size=4).train_dataloader()))
    for batch, parts in zip(whole, zip(*shares, strict=True), strict=True):
        assert all(torch.equal(value, torch.cat([part[key] for part in parts], -1 if key == "task" else 1))
                   for key, value in batch.items())  # fmt: skip


def test_episodes_that_all_end_early_train_at_any_horizon_and_others_do_not(tmp_path):
    """Training and validation, whose slices stay as long as they were asked to be."""
    ends = write_ends(tmp_path / "ends.h5", [("cup-catch", 1 + n % 3, True, True) for n in range(20)])
    data = datamodule(ends, horizon=16, batch_size=8)
    held = list(data.val_dataloader())
    assert held[0]["valid"].shape[0] == 16
    assert len(data.held_out.nonzero()[0]) == 6
    assert sum(len(batch["task"]) for batch in held) <= sum(1 + n % 3 for n in data.held_out.nonzero()[0])
    lasts = write_ends(tmp_path / "lasts.h5", [("cup-catch", 1 + n % 3, False, True) for n in range(20)])
    with pytest.raises(LitPWMError, match=r"longest training episode of 'cup-catch'.*has 3 transitions"):
        datamodule(lasts, horizon=16)


def test_what_is_counted(tmp_path, monkeypatch):
    """Slices that there are, and episodes that are not used."""
    said = []
    monkeypatch.setattr("datamodules.batches_of_steps.rank_zero_info", said.append)
    episodes = [("cup-catch", 3, True, True), ("cup-catch", 3, False, True), ("cup-catch", 9, False, True)]
    path = write_ends(tmp_path / "s.h5", episodes)
    data = datamodule(path, horizon=5, batch_size=8, val_fraction=0)
    assert data._train_batches.sampler.num_windows == 3 + 0 + 5
    assert said == ["1 of 3 training episodes are shorter than the horizon of 5 and are not used."]
    with pytest.raises(LitPWMError, match="holds only 8 training slices of horizon 5"):
        datamodule(path, horizon=5, batch_size=9, val_fraction=0)


def test_policies_never_start_at_a_terminal_row(ended):
    """Their first observations are those of batches of one step as of longer ones."""
    for horizon in (1, 4):
        data = datamodule(list(ended), horizon=horizon, batch_size=40, batches_per_epoch=120, val_fraction=0)
        starts = Counter(int(v) for batch in data.train_dataloader() for v in batch["obs"][0, :, 0].tolist())
        table = data.table
        last = {1000 * n + length for n, length in enumerate(table.length.tolist())}
        assert not last & starts.keys()
        before = {1000 * n + table.length[n] - 1 for n in np.flatnonzero(table.terminated).tolist()}
        assert before <= starts.keys()
