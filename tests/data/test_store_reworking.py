"""Stores merged, chosen from and split: what is kept is what the result reports."""

import json

import numpy as np
import pytest
from chunk_files import chunk_arrays
from tensordict_pickles import save_tensordict

from datamodules import EpisodeStore, EpisodeWriter
from datamodules.check import check
from datamodules.importing import import_data
from datamodules.info import info
from datamodules.reworking import merge, split, subset
from lit_pwm.cli.main import run
from lit_pwm.errors import LitPWMError

TASKS = {"cup-catch": (8, 2), "walker-run": (24, 6)}


def make(path, episodes, seed=0, tasks=TASKS):
    """A store of (task, length, return, source) each; some terminated."""
    drawn = np.random.default_rng(seed)
    with EpisodeWriter(path, tasks) as writer:
        for number, (task, length, total, source) in enumerate(episodes):
            obs_dim, action_dim = tasks[task]
            writer.append(
                task=task,
                obs=drawn.normal(size=(length + 1, obs_dim)),
                action=drawn.uniform(-1, 1, (length, action_dim)),
                reward=np.full(length, total / length),
                terminated=number % 3 == 0,
                source=source,
            )
    return EpisodeStore(path)


@pytest.fixture
def store(tmp_path) -> EpisodeStore:
    told = [(list(TASKS)[number % 2], 4 + number, float(number), "ab"[number % 4 // 2]) for number in range(12)]
    return make(tmp_path / "whole.h5", told)


def same(one, other):
    arrays = all(np.array_equal(getattr(one, name), getattr(other, name)) for name in ("obs", "action", "reward"))
    return arrays and (one.task, one.terminated, one.source) == (other.task, other.terminated, other.source)


def assert_holds(made, episodes):
    """The new store has these episodes in this order, reports them, and is sound."""
    assert len(made) == len(episodes) == info(made.path).num_episodes
    assert all(same(one, other) for one, other in zip(made, episodes, strict=True))
    assert made.num_transitions == sum(len(episode) for episode in episodes)
    assert sum(len(task.lengths) for task in info(made.path).tasks.values()) == len(episodes)
    assert check(made.path) == []


@pytest.mark.parametrize(
    ("chosen", "kept"),
    [
        ({"tasks": ["walker-run"]}, [1, 3, 5, 7, 9, 11]),
        ({"source": "b"}, [2, 3, 6, 7, 10, 11]),
        ({"min_return": 2.5, "max_return": 7.5}, [3, 4, 5, 6, 7]),
        ({"min_return": 0.0, "max_return": 0.0}, [0]),  # both ends count
        ({"min_return": 3.5, "tasks": ["cup-catch"], "episodes": 2}, [4, 6]),
        ({"episodes": 1}, [0, 1]),
        ({"source": "a", "episodes": 2}, [0, 1, 4, 5]),
    ],
)
def test_a_subset_is_what_it_reports(store, tmp_path, chosen, kept):
    made = subset(store.path, tmp_path / "s.h5", progress=False, **chosen)
    assert_holds(made, [store[number] for number in kept])
    assert list(made.tasks) == [name for name in TASKS if any(store[number].task == name for number in kept)]


def test_what_cannot_be_chosen_is_said(store, tmp_path):
    for chosen, said in (
        ({"source": "c"}, r"Nothing called 'c' acted in .*Accepted: a, b"),
        ({"min_return": 1e6}, r"None of the 12 episodes of .* is left"),
        ({"tasks": ["cup-catsh"]}, r"no episodes of the task 'cup-catsh'.*Did you mean 'cup-catch'"),
    ):
        with pytest.raises(LitPWMError, match=said):
            subset(store.path, tmp_path / "s.h5", progress=False, **chosen)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["whole.h5", "whole.json"]


def test_a_merge_has_all_episodes_and_merges_again_to_the_same_bytes(store, tmp_path):
    other = make(
        tmp_path / "other.h5", [("walker-run", 6, 1.0, "c"), ("mine", 3, 2.0, "c")], 1, {**TASKS, "mine": (3, 1)}
    )
    made = merge([store.path, other.path], tmp_path / "m.h5", progress=False)
    assert_holds(made, [*store, *other])
    assert list(made.tasks) == ["cup-catch", "walker-run", "mine"]
    assert made.task_specs == {**store.task_specs, "mine": {}}
    merge([store.path, other.path], tmp_path / "n.h5", progress=False)
    assert (tmp_path / "m.h5").read_bytes() == (tmp_path / "n.h5").read_bytes()
    both = merge([subset(made.path, tmp_path / "a.h5", tasks=["mine"], progress=False).path], tmp_path / "b.h5", False)
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()
    assert len(both) == 1


def test_a_whole_subset_of_a_collected_store_is_that_store(store, tmp_path):
    subset(store.path, tmp_path / "s.h5", progress=False)
    assert (tmp_path / "s.h5").read_bytes() == store.path.read_bytes()


def test_stores_that_disagree_are_not_merged(store, tmp_path):
    other = make(tmp_path / "other.h5", [("cup-catch", 3, 1.0, "c")], tasks={"cup-catch": (9, 2)})
    with pytest.raises(LitPWMError, match=r"The task 'cup-catch' has widths"):
        merge([store.path, other.path], tmp_path / "m.h5", progress=False)
    with pytest.raises(LitPWMError, match=r"of the merge are the same file"):
        merge([store.path, store.path], tmp_path / "m.h5", progress=False)


@pytest.mark.parametrize("seed", [0, 1])
def test_a_split_deals_every_episode_once_in_its_shares(store, tmp_path, seed):
    parts = split(store.path, [tmp_path / "a.h5", tmp_path / "b.h5"], [2 / 3, 1 / 3], seed, progress=False)
    assert [len(part) for part in parts] == [8, 4]
    assert [np.bincount(part.task).tolist() for part in parts] == [[4, 4], [2, 2]]
    dealt = [number for part in parts for one in part for number, other in enumerate(store) if same(one, other)]
    assert sorted(dealt) == list(range(12))
    assert dealt[:8] == sorted(dealt[:8])
    again = split(store.path, [tmp_path / "c.h5", tmp_path / "d.h5"], [2 / 3, 1 / 3], seed, progress=False)
    assert [part.path.read_bytes() for part in again] == [part.path.read_bytes() for part in parts]


def test_a_split_that_cannot_be_is_said(store, tmp_path):
    for outs, shares, said in (
        (["a.h5"], None, "two different new stores or more"),
        (["a.h5", "a.h5"], None, "two different new stores or more"),
        (["a.h5", "b.h5"], [0.9, 0.2], "sum to 1"),
        (["a.h5", "b.h5"], [1.0], "0.*sum to 1|1 for 2 new stores"),
        (["a.h5", "b.h5"], [0.99, 0.01], "would get none of the 12 episodes"),
    ):
        with pytest.raises(LitPWMError, match=said):
            split(store.path, [tmp_path / out for out in outs], shares, progress=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["whole.h5", "whole.json"]


def test_pieces_have_no_returns_to_choose_by_and_stay_pieces(tmp_path):
    save_tensordict(tmp_path / "chunk_0.pt", chunk_arrays([0, 40, 0], rows=101, obs_width=39))
    pieces = import_data([tmp_path], tmp_path / "pieces.h5", progress=False)
    with pytest.raises(LitPWMError, match=r"The episodes of walker-stand in .* are pieces of episodes"):
        subset(pieces.path, tmp_path / "s.h5", min_return=0, progress=False)
    whole = subset(pieces.path, tmp_path / "s.h5", tasks=[list(pieces.tasks)[1]], min_return=0, progress=False)
    assert whole.whole_episodes.tolist() == [True]
    made = merge([pieces.path, whole.path], tmp_path / "m.h5", progress=False)
    assert made.whole_episodes.tolist() == [False, True]
    assert made.task_specs == pieces.task_specs
    assert made.version == 3


def test_the_verbs_say_what_there_is(store, tmp_path, capsys):
    path, out = str(store.path), str(tmp_path / "s.h5")
    assert run(["data", "subset", path, "--out", out, "--min-return", "-1", "--max-return", "4.5"]) == 0
    assert "5 episodes of 2 tasks" in capsys.readouterr().out
    a, b = str(tmp_path / "a.h5"), str(tmp_path / "b.h5")
    assert run(["data", "split", path, "--out", a, b, "--shares", "0.5,0.5", "--seed", "3"]) == 0
    assert capsys.readouterr().out.count("6 episodes of 2 tasks") == 2
    assert run(["data", "merge", a, b, "--out", str(tmp_path / "m.h5")]) == 0
    assert "12 episodes of 2 tasks" in capsys.readouterr().out
    assert run(["data", "split", path, "--out", out, b, "--shares", "half,half"]) == 2
    assert "--shares is 'half,half'" in " ".join(capsys.readouterr().err.split())
    assert run(["data", "subset", path, "--out", out]) == 2
    assert "exists already" in " ".join(capsys.readouterr().err.split())


def test_what_a_store_was_made_of_lies_beside_it(store, tmp_path, caplog):
    (tmp_path / "mine.json").write_text('{"kind": "mine"}')
    subset(store.path, tmp_path / "mine.h5", progress=False)
    assert (tmp_path / "mine.json").read_text() == '{"kind": "mine"}'
    assert "mine.json' is another file" in caplog.text
    for limit in (2, 3):
        subset(store.path, tmp_path / "s.h5", episodes=limit, progress=False)
        made = json.loads((tmp_path / "s.json").read_text())
        assert (made["verb"], made["episodes"], made["files"][0][0]) == ("subset", limit, str(store.path))
        (tmp_path / "s.h5").unlink()


def test_a_split_that_is_killed_between_its_stores_goes_on(store, tmp_path, monkeypatch):
    whole = [tmp_path / "c.h5", tmp_path / "d.h5"]
    split(store.path, whole, progress=False)
    outs = [tmp_path / "a.h5", tmp_path / "b.h5"]

    def killed(self, **_):
        raise KeyboardInterrupt

    monkeypatch.setattr("datamodules.partial_store.ImportFolder._remove", killed)
    with pytest.raises(KeyboardInterrupt):
        split(store.path, outs, progress=False)
    monkeypatch.undo()
    assert [out.exists() for out in outs] == [True, False]
    with pytest.raises(LitPWMError, match="exists already"):  # a store of other settings is not this one
        split(store.path, outs, seed=1, progress=False)
    split(store.path, outs, progress=False)
    assert [out.read_bytes() for out in outs] == [out.read_bytes() for out in whole]
    assert not list(tmp_path.glob("*.importing"))
