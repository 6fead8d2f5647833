"""Files that were made to mislead, or made by others: refused by structure, by readers and `data check` alike.

No file ends in another exception than ours, and nothing is read from another file.
"""

import os
import time
import unicodedata
from pathlib import Path

import h5py
import numpy as np
import pytest
from sealing import seal

from datamodules import EpisodeStore, EpisodeWriter, probing
from datamodules.check import check, info
from lit_pwm.errors import LitPWMError

TASKS = {"cartpole-swingup": (5, 1), "walker-walk": (24, 6), "cup-catch": (8, 2)}
EPISODES = [("cartpole-swingup", 4), ("walker-walk", 6), ("cup-catch", 5)]  # 18 rows


@pytest.fixture(scope="module")
def sound(tmp_path_factory):

    path = tmp_path_factory.mktemp("sound") / "store.h5"
    with EpisodeWriter(path, tasks=TASKS) as writer:
        for number, (task, length) in enumerate(EPISODES):
            (obs_dim, action_dim), rng = TASKS[task], np.random.default_rng(number)
            arrays = rng.normal(size=(length + 1, obs_dim)), rng.uniform(-1, 1, (length, action_dim)), np.ones(length)
            writer.append(task=task, obs=arrays[0], action=arrays[1], reward=arrays[2], source=f"source {number % 2}")
    return path.read_bytes()


@pytest.fixture
def path(sound, tmp_path):
    """A sound store, to be changed."""
    (tmp_path / "store.h5").write_bytes(sound)
    return tmp_path / "store.h5"


def replace(file, name, make):
    """Put another object in a dataset's place; `make` gets the file, its name and the values."""
    values = file[name][:]
    del file[name]
    make(file, name, values)


def external_storage(file, name, values):
    place = Path(file.filename).with_name("secret.raw")
    place.write_bytes(b"root:x:0:0:root:/root:/bin/bash\n" * 200)
    file.create_dataset(name, values.shape, values.dtype, external=[(str(place), 0, h5py.h5f.UNLIMITED)])


def virtual(file, name, values):
    other = Path(file.filename).with_name("other.h5")
    with h5py.File(other, "w") as source:
        source["x"] = values
    layout = h5py.VirtualLayout(values.shape, values.dtype)
    layout[...] = h5py.VirtualSource(str(other), "x", values.shape)
    file.create_virtual_dataset(name, layout)


def external_link(file, name, values):
    other = Path(file.filename).with_name("other.h5")
    with h5py.File(other, "w") as source:
        source["x"] = values
    file[name] = h5py.ExternalLink(str(other), "/x")


def soft_link(file, name, values):
    file["elsewhere"] = values
    file[name] = h5py.SoftLink("/elsewhere")


def dangling(file, name, values):
    file[name] = h5py.SoftLink("/nowhere")


def circle(file, name, values):
    file[name] = h5py.SoftLink("/" + name)


def group(file, name, values):
    file.create_group(name)


def committed_type(file, name, values):
    file[name] = values.dtype


def as_type(dtype):
    def make(file, name, values):
        file.create_dataset(name, data=np.nan_to_num(values).astype(dtype))

    return make


def references(file, name, values):
    file.create_dataset(name, (len(values),), h5py.ref_dtype)[:] = file.ref


def scalar(file, name, values):
    file[name] = values.flat[0]


def empty(file, name, values):
    file[name] = h5py.Empty(values.dtype)


def longer(file, name, values):
    file.create_dataset(name, data=np.concatenate([values, values[:1]]))


def no_rows(file, name, values):
    file.create_dataset(name, data=values[:0])


def more_dimensions(file, name, values):
    file.create_dataset(name, data=values[..., None])


def never_written(file, name, values):
    plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plan.set_alloc_time(h5py.h5d.ALLOC_TIME_LATE)
    space = h5py.h5s.create_simple(values.shape)
    h5py.h5d.create(file.id, name.encode(), h5py.h5t.py_create(values.dtype), space, plan)


def a_terabyte_of_nothing(file, name, values):
    file.create_dataset(name, (2**38, *values.shape[1:]), values.dtype, chunks=(1024, *values.shape[1:]))


def unknown_filter(file, name, values):
    plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plan.set_chunk(values.shape)
    plan.set_filter(31234, h5py.h5z.FLAG_OPTIONAL, ())
    space = h5py.h5s.create_simple(values.shape)
    dataset = h5py.h5d.create(file.id, name.encode(), h5py.h5t.py_create(values.dtype), space, plan)
    dataset.write_direct_chunk((0,) * values.ndim, np.ascontiguousarray(values).tobytes())


def extreme_type(file, name, values):
    """A float of the right size whose bits mean something else, as numpy cannot tell."""
    kind = h5py.h5t.IEEE_F32LE.copy()
    kind.set_ebias(100)
    dataset = h5py.h5d.create(file.id, name.encode(), kind, h5py.h5s.create_simple(values.shape))
    dataset.write(h5py.h5s.ALL, h5py.h5s.ALL, np.nan_to_num(values))


def padded_integer(file, name, values):
    """40 of 64 bits, from the ninth on: numpy's type is the same, its numbers are not."""
    kind = h5py.h5t.STD_I64LE.copy()
    kind.set_precision(40)
    kind.set_offset(8)
    dataset = h5py.h5d.create(file.id, name.encode(), kind, h5py.h5s.create_simple(values.shape))
    dataset.write(h5py.h5s.ALL, h5py.h5s.ALL, values)


OBJECTS = [
    (padded_integer, "episode/length"),
    (external_storage, "obs"), (external_storage, "reward"), (external_storage, "episode/length"), (virtual, "obs"),
    (virtual, "episode/task"), (external_link, "obs"), (external_link, "episode/offset"), (soft_link, "action"),
    (soft_link, "episode/task"), (dangling, "obs"), (circle, "obs"), (group, "reward"), (group, "episode/source"),
    (committed_type, "action"), (as_type(">f4"), "obs"), (as_type("<f8"), "obs"), (as_type("<f2"), "action"),
    (as_type("<i4"), "reward"), (as_type("c8"), "reward"), (as_type("?"), "terminated"),
    (as_type(">i8"), "episode/offset"),
    (as_type("<f8"), "episode/length"), (as_type("<u8"), "episode/length"), (as_type("<i8"), "episode/task"),
    (references, "reward"), (references, "episode/source"), (scalar, "reward"), (scalar, "episode/offset"),
    (empty, "obs"), (empty, "episode/task"), (longer, "reward"), (longer, "episode/task"), (no_rows, "obs"),
    (no_rows, "episode/length"), (more_dimensions, "obs"), (more_dimensions, "episode/source"), (never_written, "obs"),
    (a_terabyte_of_nothing, "obs"), (a_terabyte_of_nothing, "episode/length"), (unknown_filter, "obs"),
    (unknown_filter, "episode/task"), (extreme_type, "obs"), (as_type("<u4"), "episode/obs_m2"),
    (external_storage, "episode/obs_sum"), (longer, "episode/checksum"),
]  # fmt: skip


def assert_refused(path):
    """Both refuse it, in our words, in reasonable time and memory; returns what `check` says."""
    started = time.monotonic()
    try:
        said = check(path)
    except LitPWMError as error:
        said = [str(error)]
    assert said
    for reading in (EpisodeStore, info):
        with pytest.raises(LitPWMError):
            reading(path)
    assert time.monotonic() - started < 10
    assert not any("\n" in fault for fault in said)
    return said


@pytest.mark.parametrize(("make", "name"), OBJECTS)
def test_objects_that_are_not_what_they_should_be(path, make, name):
    with h5py.File(path, "r+") as file:
        replace(file, name, make)
    assert any(name in fault for fault in assert_refused(path))


@pytest.mark.parametrize("link", [h5py.ExternalLink("other.h5", "/episode"), h5py.SoftLink("/table")])
def test_the_table_of_episodes_lies_in_the_file_itself(path, link):
    with h5py.File(path, "r+") as file, h5py.File(path.with_name("other.h5"), "w") as other:
        file.copy("episode", other)
        file.move("episode", "table")
        file["episode"] = link
    assert all("link" in fault for fault in assert_refused(path))


ATTRIBUTES = [
    ("task_names", np.array([1, 2, 3])), ("task_names", np.bytes_("alone")), ("task_names", h5py.Empty("S3")),
    ("task_names", np.array([b"a", b"b", b"\xff"])), ("task_names", np.array([b"a", b"b", b""])),
    ("task_names", np.array([[b"a", b"b", b"c"]])), ("task_names", np.array([b"a", b"b"])),
    ("task_names", np.array([b"a", b"a", b"b"])), ("task_names", np.array([b"a", b"b", b"x" * 5000])),
    ("task_names", np.array(["é".encode(), unicodedata.normalize("NFD", "é").encode(), b"b"])),
    ("obs_dims", np.array([5.0, 24.0, 8.0])), ("obs_dims", [5, 24]), ("obs_dims", 5), ("obs_dims", [5, 24, 0]),
    ("obs_dims", [5, 24, -8]), ("obs_dims", [5, 25, 8]), ("obs_dims", np.bytes_("wide")), ("action_dims", [2**62] * 3),
    ("action_dims", h5py.Empty("i8")), ("action_repeat", 0), ("action_repeat", -1), ("action_repeat", 2.5),
    ("action_repeat", [2, 2]), ("action_repeat", np.bytes_("2")), ("clipped_actions", -1), ("column_checksums", [1, 2]),
    ("column_checksums", np.bytes_("none")), ("attribute_checksum", 5), ("obs_dims", [4, 24, 8]), ("action_repeat", 3),
    ("format", np.bytes_("another")), ("format", 3), ("format", h5py.Empty("S1")), ("format_version", 1),
    ("format_version", 2), ("format_version", np.bytes_("2")), ("format_version", [2, 2]),
    ("format_version", h5py.Empty("i4")),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value"), ATTRIBUTES)
def test_attributes_that_are_not_what_they_should_be(path, name, value):
    with h5py.File(path, "r+") as file:
        file.attrs[name] = value
    assert_refused(path)


@pytest.mark.parametrize("name", ["format", "format_version", "task_names", "action_repeat", "attribute_checksum"])
def test_attributes_that_are_missing_or_references(path, name):
    with h5py.File(path, "r+") as file:
        del file.attrs[name]
    assert_refused(path)
    with h5py.File(path, "r+") as file:
        file.attrs.create(name, file.ref, dtype=h5py.ref_dtype)
    assert_refused(path)


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("length", [2**62, 2**62, 2**62]), ("length", [-5, 7, 6]), ("length", [5, 7, 5]), ("length", [6, 6, 6]),
        ("offset", [0, 5, 5]), ("offset", [1, 5, 12]), ("offset", [-1, 5, 12]), ("task", [0, -1, 2]),
        ("task", [0, 1, 3]), ("task", [0, 1, 1]), ("source", [b"\xff", b"a", b"b"]), ("source", [b"other"] * 3),
        ("checksum", [0, 0, 0]),
    ],
)  # fmt: skip
def test_tables_that_do_not_fit(path, column, values):
    with h5py.File(path, "r+") as file:
        file[f"episode/{column}"][:] = values
    assert any("episode/" in fault for fault in assert_refused(path))


def test_a_store_that_claims_terabytes_is_refused(tmp_path):
    """All of its parts agree, and none of its chunks is there."""
    path = tmp_path / "store.h5"
    path.write_bytes((Path(__file__).parent / "fixtures" / "version_1.h5").read_bytes())
    with h5py.File(path, "r+") as file:
        for name in ("obs", "action", "reward", "terminated"):
            replace(file, name, a_terabyte_of_nothing)
        for name, value in (("offset", 0), ("length", 2**38), ("task", 0), ("source", b"x")):
            one = np.full_like(file[f"episode/{name}"][:1], value)
            replace(file, f"episode/{name}", lambda f, n, _, one=one: f.create_dataset(n, data=one))
    assert all("chunks" in fault for fault in assert_refused(path))


def test_statistics_of_other_rows_are_found(path):
    """Their checksums are right: a program has computed them wrongly."""
    with h5py.File(path, "r+") as file:
        for name, change in (("obs_sum", 1e-3), ("obs_m2", 1e-3)):
            file[f"episode/{name}"][1, 3] += change
        seal(file)
    (fault,) = check(path)
    assert fault.startswith("episode/obs_count, obs_sum and obs_m2 are not those of the rows: 7 rows in 1 episodes")


@pytest.mark.parametrize("source", ["", "a\0b", "x" * 300])
def test_sources_that_the_writer_refuses_are_refused(path, source):
    """Their checksums are right: another program has written them."""
    with h5py.File(path, "r+") as file:
        del file["episode/source"]
        file["episode/source"] = np.array([source.encode(), b"a", b"b"], "S300")
        seal(file)
    (said,) = assert_refused(path)
    assert said.startswith("episode/source holds")


def test_names_of_fixed_or_variable_length_are_the_same_names(path):
    names = [name.encode() for name in EpisodeStore(path).task_names]
    for kind in ("S20", h5py.string_dtype(), h5py.string_dtype("ascii", 30)):
        with h5py.File(path, "r+") as file:
            file.attrs["task_names"] = np.array(names, dtype=kind)
            sources = file["episode/source"][:].tolist()
            del file["episode/source"]
            file["episode/source"] = np.array(sources, dtype=kind)
        assert check(path) == []
        store = EpisodeStore(path)
        assert [name.encode() for name in store.task_names] == names
        assert store.sources == ["source 0", "source 1", "source 0"]


@pytest.mark.parametrize("kind", ["folder", "fifo", "text", "empty", "gone", "head", "long", "device"])
def test_what_is_no_store(sound, tmp_path, kind):
    path = tmp_path / "x.h5"
    if kind == "folder":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind in ("text", "empty"):
        path.write_text("no store" if kind == "text" else "")
    elif kind == "head":
        path.write_bytes(sound[:2000])
    elif kind == "long":
        path = tmp_path / ("x" * 5000)
    elif kind == "device":
        path = Path("/dev/zero")
    assert_refused(path)


@pytest.mark.parametrize("place", ["start", "table", "rows", "end"])
def test_a_store_cut_short_anywhere_is_refused(make_store, place):
    path = make_store([("walker-walk", 300)] * 3)
    data = path.read_bytes()
    path.write_bytes(data[: {"start": 300, "table": 3000, "rows": len(data) // 2, "end": len(data) - 1}[place]])
    assert_refused(path)


@pytest.mark.parametrize(
    ("size", "last"),
    [(2**64 - 16, False), (2**63, False), (2**40, False), (2**64 - 16, True), (2**40, True), (0, True)],
)
def test_text_that_hdf5_cannot_leave_is_a_fault(path, size, last):
    """Some sizes of objects in the heap of texts send HDF5 round for ever, where no exception ends it."""
    data = bytearray(path.read_bytes())
    heap = data.index(b"GCOL")
    place = heap + 24
    while last and int.from_bytes(data[place - 8 : place - 6], "little"):
        place += 16 + -(-int.from_bytes(data[place : place + 8], "little") // 8) * 8
    data[place : place + 8] = size.to_bytes(8, "little")
    path.write_bytes(data)
    (said,) = assert_refused(path)
    assert "heap of texts" in said


def test_archives_too_large_to_search_are_tried_in_another_process(path, monkeypatch):
    monkeypatch.setattr(probing, "_SCANNED", 10)
    assert check(path) == []
    data = bytearray(path.read_bytes())
    place = data.index(b"GCOL") + 24
    data[place : place + 8] = (2**64 - 16).to_bytes(8, "little")
    path.write_bytes(data)
    monkeypatch.setattr(probing, "_SECONDS", 2)
    (said,) = assert_refused(path)
    assert "has not come back" in said
