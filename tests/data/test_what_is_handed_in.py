"""What a writer is handed and must not turn into numbers, names or episodes without a word."""

import logging
import os
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from datamodules import EpisodeStore, EpisodeWriter, assembling, layout
from datamodules.check import check, info
from datamodules.observation_statistics import observation_statistics
from datamodules.values import ACTION_LIMIT, REWARD_LIMIT
from lit_pwm.errors import LitPWMError
from lit_pwm.models import TwoHot, symexp

TASKS = {"a": (3, 1)}


def arrays(length=4):
    return {"obs": np.ones((length + 1, 3)), "action": np.ones((length, 1)), "reward": np.ones(length)}


def write(path, tasks=None, episodes=1, **options):
    with EpisodeWriter(path, tasks=tasks or TASKS, **options) as writer:
        for _ in range(episodes):
            writer.append(task=next(iter(writer.tasks)), **arrays())
    return path


def masked(values, where=0):
    mask = np.zeros(np.shape(values), bool)
    mask[where] = True
    return np.ma.masked_array(values, mask)


NO_NUMBERS = {
    "masked": {"reward": masked(np.full(4, 1e20))},
    "masked rows": {"obs": masked(np.ones((5, 3)), 2)},
    "list of masked": {"obs": [masked(np.ones(3))] * 5},
    "list with the masked constant": {"reward": [1.0, np.ma.masked, 1.0, 1.0]},
    "complex": {"reward": np.arange(4) + 1j},
    "complex without imaginary part": {"obs": np.ones((5, 3), complex)},
    "truth values": {"reward": np.ones(4, bool)},
    "truth values in a list": {"reward": [True, False, True, True]},
    "objects": {"reward": np.ones(4, object)},
    "whole numbers beyond 64 bits": {"reward": [2**70, 1, 1, 1]},
    "texts of numbers": {"reward": ["1", "2", "3", "4"]},
    "bytes": {"reward": np.array([b"1"] * 4)},
    "durations": {"reward": np.ones(4, "m8[s]")},
    "dates": {"reward": np.ones(4, "M8[s]")},
    "records": {"reward": np.ones(4, [("x", "f4")])},
    "none": {"reward": None},
    "a generator": {"reward": (x for x in range(4))},
    "dictionary": {"obs": {"x": 1}},
    "ragged": {"obs": [[1, 2, 3], [1, 2]]},
    "gradients": {"reward": torch.ones(4, requires_grad=True)},
    "bfloat16": {"reward": torch.ones(4, dtype=torch.bfloat16)},
    "NaN": {"reward": [1, 1, np.nan, 1]},
    "infinity": {"action": np.full((4, 1), -np.inf)},
    "beyond float32": {"obs": np.full((5, 3), 1e39)},
    "beyond float32 in extended precision": {"obs": np.full((5, 3), np.longdouble("1e39"))},
    "terminated as an array": {"terminated": np.array([True, False])},
    "terminated as text": {"terminated": "no"},
    "terminated NaN": {"terminated": np.nan},
    "source with surrogates": {"source": "\udcff"},
    "source with NUL": {"source": "a\0b"},
    "source of bytes": {"source": b"noise"},
    "task of another type": {"task": 3},
    "task as a list": {"task": ["a"]},
    "task with surrogates": {"task": "\udcff"},
}


@pytest.mark.parametrize("kind", NO_NUMBERS)
def test_what_is_no_episode_is_refused(tmp_path, kind):
    with EpisodeWriter(tmp_path / "s.h5", tasks=TASKS) as writer:
        with pytest.raises(LitPWMError, match="episode 0"):
            writer.append(**{"task": "a", **arrays(), **NO_NUMBERS[kind]})
        writer.append(task="a", **arrays())
    assert check(tmp_path / "s.h5") == []


@pytest.mark.parametrize(
    "reward",
    [
        np.arange(4), np.arange(4, dtype=np.uint64), [1, 2, 3, 4], (1.0, 2, 3, 4), torch.arange(4.0),
        np.ma.masked_array(np.ones(4), mask=False), np.ones(4, np.float16), np.ones(4, ">f8"),
    ],
    ids=str,
)  # fmt: skip
def test_real_numbers_of_all_kinds_are_taken(tmp_path, reward):
    with EpisodeWriter(tmp_path / "s.h5", tasks=TASKS) as writer:
        writer.append(**{"task": "a", **arrays(), "reward": reward})
    np.testing.assert_array_equal(EpisodeStore(tmp_path / "s.h5")[0].reward, np.asarray(reward, np.float32))


# -- ranges -----------------------------------------------------------------------------------------------------------
def test_the_range_of_rewards_is_that_of_a_models_bins():
    outermost = symexp(TwoHot().bins.double())
    assert float(outermost.max()) == float(-outermost.min()) == pytest.approx(float(REWARD_LIMIT), rel=1e-6)


def test_actions_are_clipped_where_they_are_beyond_by_rounding_and_refused_where_more(tmp_path):
    path = tmp_path / "s.h5"
    with EpisodeWriter(path, tasks=TASKS) as writer:
        for value in (1.00001, -2, 255):
            with pytest.raises(LitPWMError, match=r"action of episode 0 \('a'\) is beyond \[-1, 1\], from .* to"):
                writer.append(**{"task": "a", **arrays(), "action": [[0.5], [value], [0], [0]]})
        writer.append(**{"task": "a", **arrays(), "action": [[1.000001], [-1.0000005], [1], [0.5]]})
        writer.append(task="a", **arrays())
    store = EpisodeStore(path)
    assert store[0].action[:, 0].tolist() == [1, -1, 1, 0.5]
    assert (store.clipped_actions, store.clamped_rewards, check(path)) == (2, 0, [])
    assert info(path).clipped_actions == 2


def test_rewards_beyond_the_bins_are_refused_or_clamped_and_counted(tmp_path):
    path, reward = tmp_path / "s.h5", [1e5, -3e4, 22_000, 0]
    with EpisodeWriter(path, tasks=TASKS) as writer:
        with pytest.raises(LitPWMError, match=r"reward of episode 0 \('a'\) .* from -30000 to 100000.*clamp_rewards"):
            writer.append(**{"task": "a", **arrays(), "reward": reward})
        writer.append(task="a", **arrays())
    with EpisodeWriter(tmp_path / "clamped.h5", tasks=TASKS, clamp_rewards=True) as writer:
        writer.append(**{"task": "a", **arrays(), "reward": reward})
    store = EpisodeStore(tmp_path / "clamped.h5")
    assert store[0].reward.tolist() == [float(REWARD_LIMIT), -float(REWARD_LIMIT), 22_000, 0]
    assert (store.clipped_actions, store.clamped_rewards, check(store.path)) == (0, 2, [])


@pytest.mark.parametrize("option", ["clamp_rewards", "resume"])
def test_a_text_is_no_yes(tmp_path, option):
    with pytest.raises(LitPWMError, match=rf"EpisodeWriter has {option} 'no'; give true or false"):
        EpisodeWriter(tmp_path / "s.h5", tasks=TASKS, **{option: "no"})


def test_clipped_and_clamped_are_counted_over_an_interruption(tmp_path):
    path, options = tmp_path / "s.h5", {"tasks": TASKS, "clamp_rewards": True}
    episode = {"task": "a", **arrays(), "action": np.full((4, 1), 1.0000005), "reward": [1e9, 0, 0, 0]}

    def interrupted():
        with EpisodeWriter(path, **options) as writer:
            writer.append(**episode)
            raise KeyError

    with pytest.raises(KeyError):
        interrupted()
    with EpisodeWriter(path, **options, resume=True) as writer:
        writer.append(**episode)
    store = EpisodeStore(path)
    assert (store.clipped_actions, store.clamped_rewards) == (8, 2)


def test_check_finds_what_the_writer_refuses(tmp_path):
    """In a store of version 1, which was written without these rules, or by another program."""
    path = write(tmp_path / "s.h5", episodes=3)
    with h5py.File(path, "r+") as file:
        file["action"][6:8] = 2
        file["reward"][11] = -1e5
    assert check(path) == [
        "action of 'a' is beyond [-1, 1], from 2 to 2: 2 rows in 1 episodes (first: episode 1, row 1)",
        "reward of 'a' is beyond ±22,025.5, from -100000 to -100000: 1 rows in 1 episodes (first: episode 2, row 1)",
    ]
    with h5py.File(path, "r+") as file:
        file["action"][6:8], file["reward"][11] = 1, 1
    assert check(path) == []
    with h5py.File(path, "r+") as file:
        file["action"][7] = ACTION_LIMIT
    (fault,) = check(path)
    assert "checksum" in fault
    assert "1 episodes (first: episode 1, row 0)" in fault


# -- names ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "tasks",
    [
        {"a\0b": (1, 1)}, {"\udcff": (1, 1)}, {"": (1, 1)}, {"x" * 1025: (1, 1)}, {"ü" * 600: (1, 1)}, {3: (1, 1)},
        {b"a": (1, 1)}, {"é": (1, 1), "e\u0301": (1, 1)}, {"a": 3}, {"a": None}, {"a": (1, 2, 3)}, {"a": (True, 1)},
        {"a": (2**20, 1)}, {"a": "12"}, ["a"], None, {"a": (np.nan, 1)},
    ],
    ids=repr,
)  # fmt: skip
def test_names_and_widths_that_cannot_be_stored_are_refused_at_once(tmp_path, tasks):
    with pytest.raises(LitPWMError):
        EpisodeWriter(tmp_path / "s.h5", tasks=tasks)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("repeat", [0, -1, 2.0, "2", None, True, 10**9])
def test_action_repeats_that_are_none_are_refused_at_once(tmp_path, repeat):
    with pytest.raises(LitPWMError, match="action repeat"):
        EpisodeWriter(tmp_path / "s.h5", tasks=TASKS, action_repeat=repeat)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("name", ["a/b", "../a", ".", " a ", "a\nb", "é", "e\u0301", "日本" * 100, "x" * 1024, "b'a'"])
def test_names_are_kept_as_they_are(tmp_path, name):
    path = write(tmp_path / "s.h5", tasks={name: (3, 1)})
    assert check(path) == []
    assert EpisodeStore(path).task_names == (name,)


def test_many_tasks(tmp_path):
    """More than an HDF5 attribute of 64 KiB holds, in its first versions."""
    names = [f"task number {i:05d}" for i in range(9000)]
    path = write(tmp_path / "s.h5", tasks=dict.fromkeys(names, (3, 1)))
    assert check(path) == []
    assert EpisodeStore(path).task_names == tuple(names)


@pytest.mark.parametrize("place", ["x" * 300 + ".h5", "x" * 250 + ".h5", "file/s.h5", "a\0b.h5"])
def test_places_that_cannot_be_written_to_are_found_at_once(tmp_path, place):
    (tmp_path / "file").write_text("")
    with pytest.raises(LitPWMError):
        EpisodeWriter(tmp_path / place, tasks=TASKS)
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("place", [b"s.h5", None, 3, ["s.h5"]])
def test_places_that_are_no_paths_are_named(place):
    for reading in (EpisodeStore, check, lambda path: EpisodeWriter(path, tasks=TASKS)):
        with pytest.raises(LitPWMError, match=r"should be text or a pathlib\.Path"):
            reading(place)


def test_a_writer_that_was_closed_takes_no_more(tmp_path):
    with EpisodeWriter(tmp_path / "s.h5", tasks=TASKS) as writer:
        writer.append(task="a", **arrays())
    with pytest.raises(LitPWMError, match="has been closed"):
        writer.append(task="a", **arrays())
    assert len(EpisodeStore(tmp_path / "s.h5")) == 1


def test_a_link_that_leads_nowhere_is_not_written_over(tmp_path):
    path = tmp_path / "s.h5"
    path.symlink_to(tmp_path / "nowhere")
    with pytest.raises(LitPWMError, match="exists already"):
        EpisodeWriter(path, tasks=TASKS)
    path.unlink()
    writer = EpisodeWriter(path, tasks=TASKS)
    writer.append(task="a", **arrays())
    path.symlink_to(tmp_path / "nowhere")
    with pytest.raises(LitPWMError, match="exists already"):
        writer.close()
    path.unlink()
    with EpisodeWriter(path, tasks=TASKS, resume=True) as writer:
        assert len(writer) == 1


# -- a script that begins again ---------------------------------------------------------------------------------------
def test_episodes_of_a_failed_script_do_not_join_the_next_runs(tmp_path):
    def run(fails, **options):
        with EpisodeWriter(tmp_path / "s.h5", tasks=TASKS, **options) as writer:
            for number in range(len(writer) if options else 0, 10):
                if fails and number == 6:
                    raise KeyError
                writer.append(task="a", **arrays())

    with pytest.raises(KeyError):
        run(fails=True)
    with pytest.raises(LitPWMError, match=r"holds 6 episodes .* resume=True.*remove the folder"):
        run(fails=False)
    run(fails=False, resume=True)
    assert len(EpisodeStore(tmp_path / "s.h5")) == 10


def test_the_same_tasks_in_another_order_are_other_settings(tmp_path):
    """Shards know a task by its number: gone on with in another order, episodes would change their tasks."""
    path = tmp_path / "s.h5"

    def begin(fails, *names, **options):
        with EpisodeWriter(path, tasks=dict.fromkeys(names, TASKS["a"]), **options) as writer:
            if fails:
                writer.append(task="left", **arrays())
                raise KeyError

    with pytest.raises(KeyError):
        begin(True, "left", "right")
    with pytest.raises(LitPWMError, match=r"tasks was \{'left': .*'right': .*\} and is now \{'right': .*'left': "):
        begin(False, "right", "left", resume=True)
    begin(False, "left", "right", resume=True)
    assert [episode.task for episode in EpisodeStore(path)] == ["left"]


@pytest.mark.parametrize("damage", ["settings", "header", "settings of another kind"])
def test_damaged_shards_are_noticed(tmp_path, damage):
    path = tmp_path / "s.h5"

    def interrupted():
        with EpisodeWriter(path, tasks=TASKS) as writer:
            writer.append(task="a", **arrays())
            writer.append(task="a", **arrays())
            raise KeyError

    with pytest.raises(KeyError):
        interrupted()
    shards = tmp_path / "s.h5.shards"
    if damage == "header":
        (shard,) = shards.glob("*.shard")
        data = bytearray(shard.read_bytes())
        data[20:24] = (-7).to_bytes(4, "little", signed=True)  # a length with which reading would go backwards
        shard.write_bytes(data)
        with EpisodeWriter(path, tasks=TASKS, resume=True) as writer:
            assert len(writer) == 0
            writer.append(task="a", **arrays())
        return
    (shards / "settings.json").write_text("{" if damage == "settings" else "[]")
    with pytest.raises(LitPWMError, match=r"settings.json.*damaged"):
        EpisodeWriter(path, tasks=TASKS, resume=True)


def interrupted(path):
    """Leave an episode in shards; returns their folder."""
    writer = EpisodeWriter(path, tasks=TASKS)
    writer.append(task="a", **arrays())
    writer._shard.close()
    writer._folder.close()
    return path.with_name(path.name + ".shards")


def test_episodes_without_their_settings_are_refused(tmp_path):
    """As a removal leaves them that was killed, if it begins with the settings: they may be of any script."""
    shards = interrupted(tmp_path / "s.h5")
    (shards / "settings.json").unlink()
    for options in ({}, {"resume": True}):
        with pytest.raises(LitPWMError, match=r"s.h5.shards' holds episodes without the settings.json"):
            EpisodeWriter(tmp_path / "s.h5", tasks={"a": (3, 1), "b": (2, 1)}, **options)
    assert len(list(shards.glob("*.shard"))) == 1


def test_shards_are_removed_before_their_settings(tmp_path, monkeypatch):
    removed, unlink = [], Path.unlink
    monkeypatch.setattr(Path, "unlink", lambda path, **options: (removed.append(path.name), unlink(path, **options)))
    write(tmp_path / "s.h5")
    removed = [name for name in removed if not name.startswith(".")]
    assert removed[0].endswith(".shard")
    assert removed[-2:] == ["settings.json", "lock"]
    assert sorted(os.listdir(tmp_path)) == ["s.h5", "s.json"]


@pytest.mark.parametrize("kind", ["folder", "link"])
def test_what_others_keep_in_a_folder_of_that_name_stays(tmp_path, kind):
    shards = tmp_path / "s.h5.shards"
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("years of work")
    (tmp_path / "mine/chapters").mkdir()
    if kind == "link":  # a larger disk, perhaps
        shards.symlink_to(tmp_path / "mine")
    else:
        (tmp_path / "mine").rename(shards)
    with pytest.raises(LitPWMError, match="No episode"), EpisodeWriter(tmp_path / "s.h5", tasks=TASKS):
        pass
    write(tmp_path / "s.h5")
    assert check(tmp_path / "s.h5") == []
    assert sorted(path.name for path in shards.iterdir()) == ["chapters", "thesis.txt"]


@pytest.mark.parametrize("kind", ["link", "pipe", "folder"])
def test_a_lock_that_is_something_else_is_refused_and_left_as_it_is(tmp_path, kind):
    shards = tmp_path / "s.h5.shards"
    shards.mkdir()
    (tmp_path / "precious").write_text("precious")
    if kind == "link":
        (shards / "lock").symlink_to(tmp_path / "precious")
    elif kind == "folder":
        (shards / "lock").mkdir()
    else:
        os.mkfifo(shards / "lock")
        write(tmp_path / "s.h5")  # which locks as a file does
        return
    with pytest.raises(LitPWMError, match=r"s.h5.shards' .*could not be made"):
        EpisodeWriter(tmp_path / "s.h5", tasks=TASKS)
    assert (tmp_path / "precious").read_text() == "precious"


# -- the same episodes, the same file ---------------------------------------------------------------------------------
def test_the_same_episodes_give_the_same_bytes(tmp_path):
    """At another time, in another folder, over another number of shards."""
    one = write(tmp_path / "one.h5", episodes=3)
    time.sleep(1.1)
    (tmp_path / "elsewhere").mkdir()
    path = tmp_path / "elsewhere" / "two.h5"
    for number in range(3):
        writer = EpisodeWriter(path, tasks=TASKS, resume=True)
        assert len(writer) == number
        writer.append(task="a", **arrays())
        writer._shard.close()
        writer._folder.close()
    with EpisodeWriter(path, tasks=TASKS, resume=True):
        pass
    assert path.read_bytes() == one.read_bytes()
    for word in (str(tmp_path), os.uname().nodename):
        assert word.encode() not in one.read_bytes()


def test_the_stored_moments_merge_to_the_observations_statistics(mixed_store):
    from datamodules.episodes import choose

    store = EpisodeStore(mixed_store)
    table, (count, total, squares) = choose([store], None), store.observation_moments()
    chosen = np.arange(0, len(table), 2)
    for task, (name, (mean, std)) in enumerate(observation_statistics([store], table, chosen).items()):
        own = chosen[store.task[chosen] == task]
        width, rows = store.tasks[name][0], count[own].sum()
        centre = total[own].sum(axis=0) / rows
        within = squares[own] + count[own, None] * (total[own] / count[own, None] - centre) ** 2
        np.testing.assert_allclose(centre[:width], mean, rtol=1e-10)
        np.testing.assert_allclose(np.sqrt(within.sum(axis=0) / rows)[:width], std, rtol=1e-9)
        assert not centre[width:].any()


def test_version_1_is_read_with_one_notice(caplog):
    from datamodules import opening

    path = Path(__file__).parent / "fixtures" / "version_1.h5"
    opening._noticed.clear()
    with caplog.at_level(logging.WARNING):
        stores = [EpisodeStore(path), EpisodeStore(path)]
        assert check(path) == []
    assert ["version 1" in record.getMessage() for record in caplog.records] == [True]
    assert (info(path).version, stores[0].observation_moments(), stores[0].action_repeat) == (1, None, 4)
    assert stores[0].tasks == {"a": (3, 1), "b/ü": (2, 2)}
    assert [len(e) for e in stores[0]] == [5, 6, 7, 8, 9, 10]
    assert [e.terminated for e in stores[0]] == [False] * 3 + [True] + [False] * 2
    assert stores[0][5].source == "source 2"
    rng = np.random.default_rng(7)
    np.testing.assert_array_equal(stores[0][0].obs, rng.standard_normal((6, 3)).astype(np.float32))
    np.testing.assert_array_equal(stores[0][0].action, rng.uniform(-1, 1, (5, 1)).astype(np.float32))


def test_a_changed_working_directory(tmp_path, monkeypatch):
    """Paths mean what they meant when they were given; `~` is the home folder."""
    from datamodules import MultitaskDataModule

    for folder in ("here", "there"):
        (tmp_path / folder).mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "here"))
    monkeypatch.chdir(tmp_path / "here")
    with EpisodeWriter("s.h5", tasks=TASKS) as writer:
        writer.append(task="a", **arrays(40))
        monkeypatch.chdir(tmp_path / "there")
        writer.append(task="a", **arrays(40))
    assert sorted(os.listdir(tmp_path / "here")) == ["s.h5", "s.json"]
    monkeypatch.chdir(tmp_path / "here")
    store, data = EpisodeStore("s.h5"), MultitaskDataModule("s.h5", horizon=4, batch_size=8)
    monkeypatch.chdir(tmp_path / "there")
    data.setup()
    assert store[0].obs.shape == (41, 3)
    assert next(iter(data.train_dataloader()))["obs"].shape == (5, 8, 3)
    assert len(EpisodeStore("~/s.h5")) == 2
    assert MultitaskDataModule("~/s.h5", horizon=4, batch_size=8).tasks == TASKS


@pytest.mark.faults
def test_a_full_disk_costs_the_episode_in_flight_alone(tmp_path):
    """Files may grow to 20 kB, so that appending fails, and later the assembled store; then there is room again."""
    script = """
import resource, sys
import numpy as np
from datamodules import EpisodeWriter
from lit_pwm.errors import LitPWMError

def limit(size):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

def episode(length):
    return {"obs": np.full((length + 1, 3), length), "action": np.ones((length, 1)), "reward": np.ones(length)}

path = sys.argv[1]
try:
    with EpisodeWriter(path, tasks={"a": (3, 1)}) as writer:
        limit(20_000)
        writer.append(task="a", **episode(100))
        for _ in range(3):
            try:
                writer.append(task="a", **episode(2000))
                raise AssertionError
            except LitPWMError as error:
                assert "could not be written" in str(error) and "too large" in str(error), error
        writer.append(task="a", **episode(101))
        for i in range(6):
            writer.append(task="a", **episode(102 + i))
except LitPWMError as error:  # the store itself is larger than the limit
    assert "could not be written" in str(error), error
else:
    raise AssertionError
limit(resource.RLIM_INFINITY)
with EpisodeWriter(path, tasks={"a": (3, 1)}, resume=True) as writer:
    assert len(writer) == 8
"""
    path = tmp_path / "s.h5"
    done = subprocess.run(
        [sys.executable, "-c", script, str(path)], capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stderr
    assert [len(episode) for episode in EpisodeStore(path)] == [100, 101, *range(102, 108)]
    assert check(path) == []
    assert sorted(os.listdir(tmp_path)) == ["s.h5", "s.json"]


def test_info_says_version_and_what_was_moved(tmp_path, capsys):
    import argparse

    from lit_pwm.cli.data import run_info

    path = tmp_path / "s.h5"
    with EpisodeWriter(path, tasks=TASKS, clamp_rewards=True) as writer:
        writer.append(**{"task": "a", **arrays(), "action": np.full((4, 1), 1.0000005), "reward": [1e9, 0, 0, 0]})
    run_info(argparse.Namespace(store=str(path)))
    said = capsys.readouterr().out
    assert "format version 2" in said
    assert "4 actions were clipped to ±1." in said
    assert "1 rewards clamped." in said


def test_names_from_a_file_do_not_reach_the_terminal_raw(tmp_path, capsys):
    import argparse

    from lit_pwm.cli.data import run_info

    path = tmp_path / "s.h5"
    with EpisodeWriter(path, tasks={"\x1b[2Jgone": (3, 1), "é": (3, 1), "a\nb": (3, 1)}) as writer:
        writer.append(task="\x1b[2Jgone", **arrays(), source="\x1b]0;title\x07")
        writer.append(task="é", **arrays())
    run_info(argparse.Namespace(store=str(path)))
    said = capsys.readouterr().out
    assert not any(sign in said for sign in "\x1b\x07")
    assert "\né: 1 episodes" in said
    assert "Without episodes: 'a\\nb'" in said


def test_wide_rows_are_handled_a_few_at_a_time(tmp_path, monkeypatch):
    """So that they take little memory; the file is the same."""
    tasks = {"a": (3, 1), "wide": (5000, 1)}
    one = write(tmp_path / "one.h5", tasks, episodes=7)
    assert layout.block_rows(1_000_000, 65_536) == 33
    monkeypatch.setattr(layout, "_BLOCK_NUMBERS", 50_000)
    blocks, pad = [], assembling._padded
    monkeypatch.setattr(assembling, "_padded", lambda block, widths: blocks.append(len(block)) or pad(block, widths))
    two = write(tmp_path / "two.h5", tasks, episodes=7)
    assert blocks == [2, 2, 2, 1]
    assert one.read_bytes() == two.read_bytes()
    assert check(two) == []
