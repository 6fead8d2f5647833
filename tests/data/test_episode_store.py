"""The file's layout, and reading it back."""

import os
import pickle
import subprocess
import sys

import h5py
import hdf5plugin
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from datamodules import EpisodeStore, EpisodeWriter
from datamodules.check import check
from lit_pwm.errors import LitPWMError

NUMBERS = st.floats(-(2.0**100), 2.0**100, width=32)


@st.composite
def stores(draw):
    tasks = {f"task {i}": (draw(st.integers(1, 4)), draw(st.integers(1, 3))) for i in range(draw(st.integers(1, 3)))}
    episodes = []
    for _ in range(draw(st.integers(1, 6))):
        task = draw(st.sampled_from(sorted(tasks)))
        length, (obs_dim, action_dim) = draw(st.integers(1, 9)), tasks[task]
        values = np.random.default_rng(draw(st.integers(0, 2**32))).normal
        obs = values(size=(length + 1, obs_dim))
        obs[draw(st.integers(0, length)), 0] = draw(NUMBERS)
        source = draw(
            st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=20)
        )
        arrays = {
            "obs": obs,
            "action": np.clip(values(size=(length, action_dim)), -1, 1),
            "reward": values(size=length),
        }
        episodes.append({"task": task, **arrays, "terminated": draw(st.booleans()), "source": source})
    return tasks, episodes


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(stores())
def test_what_is_written_is_read(tmp_path_factory, content):
    tasks, episodes = content
    path = tmp_path_factory.mktemp("round_trip") / "store.h5"
    with EpisodeWriter(path, tasks=tasks) as writer:
        for arrays in episodes:
            writer.append(**arrays)
    store = EpisodeStore(path)
    assert check(path) == []
    assert store.tasks == tasks
    assert len(store) == len(episodes)
    assert store.num_transitions == sum(len(e["reward"]) for e in episodes)
    assert store.num_rows == store.num_transitions + len(episodes)
    for written, read in zip(episodes, store, strict=True):
        for key in ("obs", "action", "reward"):
            np.testing.assert_array_equal(getattr(read, key), np.asarray(written[key], np.float32))
        assert (read.task, read.terminated, read.source) == tuple(written[k] for k in ("task", "terminated", "source"))


def test_layout_of_the_file(make_store):
    path = make_store([("walker-walk", 3), ("cartpole-swingup", 2)], terminated=[1])
    with h5py.File(path) as file:
        assert file.attrs["format"] == "lit_pwm episode store"
        assert file.attrs["format_version"] == 3
        assert list(file.attrs["task_names"]) == ["cartpole-swingup", "walker-walk", "cup-catch"]
        assert file.attrs["obs_dims"].tolist() == [5, 24, 8]
        assert file.attrs["action_dims"].tolist() == [1, 6, 2]
        assert file.attrs["action_repeat"] == 2
        shapes = {"obs": (7, 24), "action": (7, 6), "reward": (7,), "terminated": (7,)}
        for name, shape in shapes.items():
            assert file[name].shape == shape
            assert file[name].dtype == (np.uint8 if name == "terminated" else np.float32)
            assert file[name].chunks is None
            assert file[name].id.get_offset() is not None
        assert file["episode/offset"][:].tolist() == [0, 4]
        assert file["episode/length"][:].tolist() == [4, 3]
        assert file["episode/task"][:].tolist() == [1, 0]
        assert file["episode/source"].asstr()[:].tolist() == ["source 0", "source 1"]
        action, reward = file["action"][:], file["reward"][:]
        assert np.isnan(reward).tolist() == [False] * 3 + [True] + [False] * 2 + [True]
        assert np.isnan(action[3]).all()
        assert np.isnan(action[6]).tolist() == [True] + [False] * 5
        assert (action[4:, 1:] == 0).all()
        assert (file["obs"][4:, 5:] == 0).all()
        assert file["terminated"][:].tolist() == [0] * 6 + [1]
        # Row t holds the action taken at observation t: both count t in our stores.
        assert (action[:3, 0] * 2**20 == -file["obs"][:3, 0]).all()


def test_episodes_can_be_counted_from_the_end_and_not_beyond(mixed_store):
    store = EpisodeStore(mixed_store)
    np.testing.assert_array_equal(store[-1].obs, store[39].obs)
    assert store[-1].obs[0, 0] == 39000
    for index in (40, -41):
        with pytest.raises(IndexError):
            store[index]


def test_a_store_is_pickled_without_its_mapped_rows(mixed_store):
    store = EpisodeStore(mixed_store)
    expected = store[3]
    data = pickle.dumps(store)
    assert len(data) < 20_000
    np.testing.assert_array_equal(pickle.loads(data)[3].obs, expected.obs)


def chunked_copy(path, to, **options):
    """The same store with chunked, compressed datasets."""
    with h5py.File(path) as source, h5py.File(to, "w") as target:
        for key, value in source.attrs.items():
            target.attrs[key] = value
        source.copy("episode", target)
        for name in ("obs", "action", "reward", "terminated"):
            target.create_dataset(name, data=source[name][:], chunks=True, **options)
    return to


def test_chunked_stores_are_read_too(mixed_store, tmp_path):
    plain, chunked = (
        EpisodeStore(mixed_store),
        EpisodeStore(chunked_copy(mixed_store, tmp_path / "c.h5", compression=4)),
    )
    for name in ("obs", "action", "reward"):
        starts = np.array([700, 3, 3, 250])
        for width in (None, *([2] if name != "reward" else [])):
            expected = plain.column(name).windows(starts, 5, width)
            np.testing.assert_array_equal(chunked.column(name).windows(starts, 5, width), expected)
    for a, b in zip(plain, chunked, strict=True):
        np.testing.assert_array_equal(a.obs, b.obs)


def test_a_process_that_knows_no_filters_reads_compressed_stores(mixed_store, tmp_path):
    archive = chunked_copy(mixed_store, tmp_path / "c.h5", **hdf5plugin.Blosc("lz4"))
    code = f"from datamodules import EpisodeStore; print(EpisodeStore({str(archive)!r})[3].obs.sum())"
    output = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert float(output) == pytest.approx(EpisodeStore(mixed_store)[3].obs.sum())


def test_missing_file_names_it(tmp_path):
    with pytest.raises(LitPWMError, match=r"nowhere.h5.*does not exist"):
        EpisodeStore(tmp_path / "nowhere.h5")
    with pytest.raises(LitPWMError, match="is a folder"):
        EpisodeStore(tmp_path)


def test_files_that_are_no_stores(tmp_path):
    (tmp_path / "text.h5").write_text("hello")
    with pytest.raises(LitPWMError, match="could not be read as HDF5"):
        EpisodeStore(tmp_path / "text.h5")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["x"] = [1]
    with pytest.raises(LitPWMError, match=r"no episode store.*None"):
        EpisodeStore(tmp_path / "other.h5")


def test_another_version_names_both(make_store):
    path = make_store([("cup-catch", 3)])
    with h5py.File(path, "r+") as file:
        file.attrs["format_version"] = 7
    with pytest.raises(LitPWMError, match=r"format_version 7.*reads 1, 2, 3"):
        EpisodeStore(path)


@pytest.mark.parametrize("damage", ["offset", "length", "task", "obs", "names"])
def test_a_damaged_table_is_refused(make_store, damage):
    path = make_store([("cup-catch", 3), ("cup-catch", 4)])
    with h5py.File(path, "r+") as file:
        if damage == "obs":
            del file["obs"]
        elif damage == "names":
            file.attrs["task_names"] = np.array(["cup-catch"], dtype=h5py.string_dtype())
        else:
            file[f"episode/{damage}"][1] = 9
    with pytest.raises(LitPWMError, match=r"damaged.*data check"):
        EpisodeStore(path)


def test_reading_a_store_loads_no_torch(mixed_store):
    import subprocess
    import sys

    script = (
        "import sys; from datamodules import EpisodeStore, EpisodeWriter; from datamodules.check import info, check; "
        "EpisodeStore(sys.argv[1])[0]; info(sys.argv[1]); check(sys.argv[1]); "
        "heavy = {'torch', 'lightning', 'gymnasium', 'dm_control'} & set(sys.modules); assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", script, str(mixed_store)], check=True, timeout=60)


def test_windows_of_a_store_too_large_for_the_page_cache_are_announced(mixed_store, monkeypatch):
    announced = []
    monkeypatch.setattr("datamodules.columns._physical_memory", lambda: 10_000)
    monkeypatch.setattr("os.posix_fadvise", lambda *what: announced.append(what[1:]))
    column = EpisodeStore(mixed_store).column("obs")
    starts = np.array([90, 3, 40])
    assert np.array_equal(column.windows(starts, 6)[:, 1], column.read(3, 9))
    with h5py.File(mixed_store) as file:
        first = file["obs"].id.get_offset()
    rows = 24 * 4
    assert announced == [(first + start * rows, 6 * rows, os.POSIX_FADV_WILLNEED) for start in (3, 40, 90)]
