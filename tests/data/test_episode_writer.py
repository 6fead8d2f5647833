"""A store under its final name is complete; whatever interrupts its writing, finished episodes are kept."""

import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from datamodules import EpisodeStore, EpisodeWriter
from datamodules.shards import scan
from lit_pwm.errors import LitPWMError

TASKS = {"a": (3, 1), "b": (2, 2)}

# Appends the episodes that are not there yet, and says after each how many are. With an argument it stops after so
# many, to be killed.
SCRIPT = """
import sys, time
import numpy as np
from datamodules import EpisodeWriter

path, stop = sys.argv[1], int(sys.argv[2])
tasks = {"a": (3, 1), "b": (2, 2)}
with EpisodeWriter(path, tasks=tasks, resume=True) as writer:
    print("found", len(writer), flush=True)
    for i in range(len(writer), 60):
        if i == stop:
            time.sleep(60)
        rng, task = np.random.default_rng(i), "ab"[i % 2]
        length, (o, a) = 5 + i % 7, tasks[task]
        arrays = rng.normal(size=(length + 1, o)), rng.uniform(-1, 1, (length, a)), rng.normal(size=length)
        writer.append(task=task, obs=arrays[0], action=arrays[1], reward=arrays[2], source="test")
        print("appended", len(writer), flush=True)
"""


def start_writer(path, stop=-1):
    return subprocess.Popen([sys.executable, "-c", SCRIPT, str(path), str(stop)], stdout=subprocess.PIPE, text=True)


def run_writer(path):
    """Let it finish, and return the number of episodes that it found."""
    with start_writer(path) as process:
        output = process.communicate(timeout=60)[0]
    assert process.returncode == 0
    return int(output.split()[1])


def interrupt(path, tasks=TASKS, episodes=1):
    """Leave the shards of a writer that met an exception; returns its one shard."""

    def write():
        with EpisodeWriter(path, tasks=tasks) as writer:
            for _ in range(episodes):
                writer.append(task="a", **arrays())
            raise KeyError

    with pytest.raises(KeyError):
        write()
    (shard,) = path.with_name("s.h5.shards").glob("*.shard")
    return shard


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    path = tmp_path_factory.mktemp("whole") / "s.h5"
    assert run_writer(path) == 0
    return path.read_bytes()


def arrays(length=4, dims=(3, 1)):
    return {"obs": np.ones((length + 1, dims[0])), "action": np.ones((length, dims[1])), "reward": np.ones(length)}


@pytest.mark.parametrize("stop", [0, 17, 41])
def test_a_killed_writer_continues_to_the_same_file(tmp_path, uninterrupted, stop):
    path = tmp_path / "s.h5"
    with start_writer(path, stop) as process:
        line = ""
        while line != (f"appended {stop}" if stop else "found 0"):
            line = process.stdout.readline().strip()
        process.kill()
    assert not path.exists()
    assert run_writer(path) == stop  # every episode whose append had returned
    assert path.read_bytes() == uninterrupted
    assert sorted(os.listdir(tmp_path)) == ["s.h5", "s.json"]


def test_a_writer_killed_at_random_moments_loses_at_most_the_episode_in_flight(tmp_path, uninterrupted):
    path, appended = tmp_path / "s.h5", 0
    for delay in (0.002, 0.001, 0.003, 0.002, 0.004):
        with start_writer(path) as process:
            assert int(process.stdout.readline().split()[1]) >= appended
            time.sleep(delay)
            process.send_signal(signal.SIGKILL)
            said = process.communicate(timeout=10)[0].splitlines()
        appended = max([appended, *(int(line.split()[1]) for line in said if line.startswith("appended"))])
        if path.exists():
            break
    if not path.exists():
        assert run_writer(path) >= appended
    assert path.read_bytes() == uninterrupted


def test_any_torn_end_of_a_shard_is_left_out(tmp_path):
    shard = interrupt(tmp_path / "s.h5", episodes=3)
    data, record = shard.read_bytes(), shard.stat().st_size // 3
    for kept in range(len(data)):
        shard.write_bytes(data[:kept])
        assert len(scan(shard)) == kept // record
    shard.write_bytes(data + bytes(100))  # zeros after a power cut
    assert len(scan(shard)) == 3


def test_a_damaged_shard_is_noticed(tmp_path):
    path = tmp_path / "s.h5"
    shard = interrupt(path)
    data = bytearray(shard.read_bytes())
    data[-3] ^= 1
    shard.write_bytes(data)
    with pytest.raises(LitPWMError, match="checksum"), EpisodeWriter(path, tasks=TASKS, resume=True):
        pass
    assert not path.exists()


def test_an_exception_leaves_shards_and_no_file(tmp_path):
    path = tmp_path / "s.h5"
    interrupt(path)
    assert os.listdir(tmp_path) == ["s.h5.shards"]
    with EpisodeWriter(path, tasks=TASKS, resume=True) as writer:
        assert len(writer) == 1
        writer.append(task="b", **arrays(7, (2, 2)))
    assert [len(e) for e in EpisodeStore(path)] == [4, 7]
    assert sorted(os.listdir(tmp_path)) == ["s.h5", "s.json"]


def test_an_exception_before_the_first_episode_leaves_nothing(tmp_path):
    with pytest.raises(LitPWMError), EpisodeWriter(tmp_path / "s.h5", tasks=TASKS) as writer:
        writer.append(task="c", **arrays())
    assert os.listdir(tmp_path) == []


def test_a_writer_without_episodes_is_an_error(tmp_path):
    with pytest.raises(LitPWMError, match="No episode"), EpisodeWriter(tmp_path / "s.h5", tasks=TASKS):
        pass
    assert os.listdir(tmp_path) == []


def test_a_folder_that_stood_before_or_is_the_current_one_stays(tmp_path, monkeypatch):
    shards = tmp_path / "s.h5.shards"
    shards.mkdir()
    with pytest.raises(LitPWMError, match="No episode"), EpisodeWriter(tmp_path / "s.h5", tasks=TASKS):
        pass
    assert [*tmp_path.rglob("*")] == [shards]
    monkeypatch.chdir(shards)
    with EpisodeWriter("../s.h5", tasks=TASKS) as writer:
        writer.append(task="a", **arrays())
    assert os.getcwd() == str(shards)
    assert sorted(tmp_path.rglob("*")) == [tmp_path / "s.h5", shards, tmp_path / "s.json"]


def test_an_existing_file_is_never_written_over(tmp_path):
    path = tmp_path / "s.h5"
    path.write_text("precious")
    with pytest.raises(LitPWMError, match="exists already"):
        EpisodeWriter(path, tasks=TASKS)
    assert os.listdir(tmp_path) == ["s.h5"]
    path.unlink()
    writer = EpisodeWriter(path, tasks=TASKS)
    writer.append(task="a", **arrays())
    path.write_text("came meanwhile")
    with pytest.raises(LitPWMError, match="exists already"):
        writer.close()
    assert path.read_text() == "came meanwhile"
    path.unlink()
    with EpisodeWriter(path, tasks=TASKS, resume=True) as writer:
        assert len(writer) == 1


def test_two_writers_of_one_file_are_refused(tmp_path):
    path = tmp_path / "s.h5"
    with EpisodeWriter(path, tasks=TASKS) as writer:
        writer.append(task="a", **arrays())
        with pytest.raises(LitPWMError, match="Another process"):
            EpisodeWriter(path, tasks=TASKS)
    assert len(EpisodeStore(path)) == 1


def test_shards_of_other_tasks_are_refused(tmp_path):
    path = tmp_path / "s.h5"
    interrupt(path)
    with pytest.raises(LitPWMError, match=r"tasks was .*remove the folder"):
        EpisodeWriter(path, tasks={"a": (3, 1)})
    with pytest.raises(LitPWMError, match="action_repeat was 2 and is now 4"):
        EpisodeWriter(path, tasks=TASKS, action_repeat=4)
    shutil.rmtree(tmp_path / "s.h5.shards")
    with EpisodeWriter(path, tasks={"a": (3, 1)}) as writer:
        writer.append(task="a", **arrays())
    assert EpisodeStore(path).tasks == {"a": (3, 1)}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"task": "aa"}, "Did you mean 'a'"),
        ({"obs": np.ones((4, 3))}, r"obs \[4, 3\].*\[T\+1, 3\]"),
        ({"obs": np.ones((5, 2))}, r"obs \[5, 2\]"),
        ({"action": np.ones((4, 2))}, r"action \[4, 2\]"),
        ({"action": np.ones(4)}, r"action \[4\]"),
        ({"reward": np.ones((4, 1))}, r"reward \[4, 1\]"),
        ({"obs": np.ones((1, 3)), "action": np.ones((0, 1)), "reward": np.ones(0)}, "at least one"),
        ({"reward": [1, 2, np.nan, 4]}, r"reward .* nan at \[2\]"),
        ({"obs": np.full((5, 3), 1e39)}, r"inf at \[0, 0\]"),
        ({"action": np.full((4, 1), np.inf)}, "inf"),
        ({"action": [["x"]] * 4}, "no array of numbers"),
        ({"obs": [[1, 2, 3], [1, 2]]}, "no array of numbers"),
        ({"terminated": 3}, "terminated"),
        ({"source": ""}, "source"),
        ({"source": "x" * 300}, "source"),
    ],
)
def test_bad_episodes_are_refused_and_the_writer_goes_on(tmp_path, change, says):
    path = tmp_path / "s.h5"
    with EpisodeWriter(path, tasks=TASKS) as writer:
        with pytest.raises(LitPWMError, match=says):
            writer.append(**{"task": "a", **arrays(), **change})
        writer.append(task="a", **arrays())
    assert len(EpisodeStore(path)) == 1


@pytest.mark.parametrize("tasks", [{}, {"a": (3,)}, {"a": (3, 0)}, {"": (1, 1)}, {"a": (3.5, 1)}])
def test_bad_tasks_are_refused(tmp_path, tasks):
    with pytest.raises(LitPWMError):
        EpisodeWriter(tmp_path / "s.h5", tasks=tasks)
    assert os.listdir(tmp_path) == []
