"""What training is given: values it can use, files that stay, episodes that validation can use, each store once."""

import os
import shutil
import subprocess
import sys
import zlib
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

import datamodules.batches_of_steps
import datamodules.multitask
from datamodules import EpisodeStore, EpisodeWriter, MultitaskDataModule
from datamodules.guarding import Guard
from lit_pwm.errors import LitPWMError


def module(store, **options):
    """A small datamodule, set up."""
    data = MultitaskDataModule(**{"store": store, "horizon": 5, "batch_size": 16, "batches_per_epoch": 40} | options)
    data.setup()
    return data


@pytest.fixture
def notices(monkeypatch):
    said = []
    for module in (datamodules.batches_of_steps, datamodules.multitask):
        monkeypatch.setattr(module, "rank_zero_info", said.append)
    return said


def lengths_store(path, lengths):
    """A store of episodes of some lengths, by task."""
    with EpisodeWriter(path, tasks=dict.fromkeys(lengths, (3, 1))) as writer:
        for name, own in lengths.items():
            for number, length in enumerate(own):
                rng = np.random.default_rng([number, length])
                obs, action = rng.normal(size=(length + 1, 3)), rng.uniform(-1, 1, (length, 1))
                writer.append(task=name, obs=obs, action=action, reward=np.zeros(length))
    return str(path)


# -- values -----------------------------------------------------------------------------------------------------------
def spoil(path, name, value):
    """Change one number of each episode's tenth row, as a program that does not check would have written it."""
    with h5py.File(path, "r+") as file:
        for offset in file["episode/offset"][:].tolist():
            file[name][(offset + 10, 0) if name != "reward" else offset + 10] = value


SPOILT = [("obs", np.nan), ("obs", -np.inf), ("action", 2.0), ("action", np.nan), ("reward", 1e5), ("reward", np.inf)]


@pytest.mark.parametrize(("name", "value"), SPOILT)
@pytest.mark.parametrize("storage", ["memmap", "ram", "device"])
def test_values_that_cannot_be_trained_on_are_named(make_store, name, value, storage):
    path = make_store([("cup-catch", 30)] * 4)
    spoil(path, name, value)
    data = module(str(path), storage=storage)
    with pytest.raises(LitPWMError, match=rf"{path.name}.*{name}.*episode \d.*row 10|first: episode 0, row 10") as said:
        list(data.train_dataloader())
    assert "cup-catch" in str(said.value) or storage != "memmap"
    assert "data check" in str(said.value)
    assert "\n" not in str(said.value)


@pytest.mark.parametrize(("name", "value"), [("obs", 3.0), ("action", 0.5), ("action", np.nan)])
@pytest.mark.parametrize("storage", ["memmap", "ram", "device"])
@pytest.mark.parametrize("tasks", [None, ["cup-catch"]])
def test_padding_that_is_not_zero_is_named(make_store, name, value, storage, tasks):
    """Of a task that is narrower than another, chosen or not."""
    path = make_store([("walker-walk", 30), ("cup-catch", 30)] * 3)
    with h5py.File(path, "r+") as file:
        file[name][31 + 10 : 31 + 15, -1] = value
    data = module(str(path), storage=storage, tasks=tasks, val_fraction=0)
    with pytest.raises(LitPWMError, match=rf"{path.name}.*{name}.*episode 1\D.*row 1[0-4]") as said:
        list(data.train_dataloader())
    assert "padding" in str(said.value) or np.isnan(value)
    sound = module(str(path), storage=storage, tasks=["walker-walk"])
    assert len(list(sound.train_dataloader())) == 40


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize("num_workers", [0, 2])
def test_the_episode_and_row_are_those_of_the_value(make_store, num_workers):
    """Of two stores, with other tasks left out, where episodes of the table are not those of a store."""
    paths = [make_store([("cup-catch", 30)] * 3, name="sound.h5")]
    paths.append(make_store([("walker-walk", 30), ("cup-catch", 25), ("cup-catch", 28)] * 2, name="spoilt.h5"))
    with h5py.File(paths[1], "r+") as file:
        for episode in (1, 2, 4, 5):
            file["action"][file["episode/offset"][episode] + 3, 1] = -7.5
    data = module([str(path) for path in paths], tasks=["cup-catch"], num_workers=num_workers)
    with pytest.raises(LitPWMError) as said:
        list(data.train_dataloader())
    text = str(said.value)
    assert "spoilt.h5" in text
    assert any(f"the action of episode {episode} ('cup-catch'), row 3, is -7.5" in text for episode in (1, 2, 4, 5))
    assert "Traceback" not in text


def test_values_of_validation_batches_are_looked_at_too(make_store):
    path = make_store([("cup-catch", 30)] * 4)
    held = int(np.flatnonzero(module(str(path)).held_out)[0])
    with h5py.File(path, "r+") as file:
        file["obs"][file["episode/offset"][held] + 10, 0] = np.nan
    data = module(str(path))
    assert len(list(data.train_dataloader())) == 40
    with pytest.raises(LitPWMError, match=f"obs of episode {held}"):
        list(data.val_dataloader())


def test_statistics_of_observations_that_are_not_finite_are_refused(make_store, version_1):
    """Where rows are read for them; what a store holds of its rows was made of finite ones."""
    path = version_1(make_store([("cup-catch", 30)] * 4))
    with h5py.File(path, "r+") as file:
        file["obs"][31 * 2 + 5, 1] = np.inf
    data = module(str(path), val_fraction=0)
    with pytest.raises(LitPWMError, match=r"store.h5.*observations of episode 2 \('cup-catch'\) are not finite"):
        data.observation_statistics()


def test_the_extremes_that_are_allowed_pass(make_store):
    path = make_store([("cup-catch", 30)] * 4)
    spoil(path, "obs", np.finfo(np.float32).max)
    spoil(path, "action", 1.0000005)
    spoil(path, "reward", -22_025)
    for storage in ("memmap", "ram"):
        assert len(list(module(str(path), storage=storage).train_dataloader())) == 40


def test_values_of_chosen_tasks_alone_are_looked_at(make_store):
    path = make_store([("cup-catch", 30), ("walker-walk", 30)] * 4)
    with h5py.File(path, "r+") as file:
        file["obs"][:31] = np.inf
    for storage in ("memmap", "ram"):
        assert len(list(module(str(path), tasks=["walker-walk"], storage=storage).train_dataloader())) == 40


# -- files that change ------------------------------------------------------------------------------------------------
CHANGES = {
    "shorter": (lambda path: os.truncate(path, 4096), "bytes long and is now 4,096"),
    "longer": (lambda path: path.write_bytes(path.read_bytes() + b"x"), "bytes long and is now"),
    "written to": (lambda path: os.utime(path, ns=(1, 1)), "was written to"),
    "gone": (os.unlink, "cannot be found"),
}


def replaced(path):
    copy = path.with_suffix(".copy")
    shutil.copy2(path, copy)
    copy.replace(path)


CHANGES["replaced"] = replaced, "was replaced by another file"


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("when", ["after setup", "between epochs", "between batches", "before validation"])
def test_a_store_that_changes_under_its_reader_is_an_error(tmp_path, change, when):
    path = Path(lengths_store(tmp_path / "s.h5", {"a": [3000] * 8}))
    changing, says = CHANGES[change]
    data = module(str(path), batches_per_epoch=4, prefetch=0)
    if when == "after setup":
        changing(path)
        with pytest.raises(LitPWMError, match=says):
            list(data.train_dataloader())
        return
    loader = data.train_dataloader()
    batches = iter(loader)
    next(batches)
    if when == "between epochs":
        list(batches)
        changing(path)
        batches = iter(loader)
    elif when == "before validation":
        changing(path)
        batches = iter(data.val_dataloader())
    else:
        changing(path)
    with pytest.raises(LitPWMError, match=says):
        next(batches)


@pytest.mark.parametrize("change", [change for change in CHANGES if change != "shorter"])  # in whatever moment
def test_batches_made_before_a_store_changed_are_not_handed_out(tmp_path, change):
    path = Path(lengths_store(tmp_path / "s.h5", {"a": [3000] * 8}))
    changing, says = CHANGES[change]
    batches = iter(module(str(path), prefetch=3).train_dataloader())
    next(batches)
    changing(path)
    with pytest.raises(LitPWMError, match=says):
        next(batches)


def test_single_episodes_of_a_store_that_has_shrunk(tmp_path):
    path = Path(lengths_store(tmp_path / "s.h5", {"a": [3000] * 8}))
    store = EpisodeStore(path)
    store[0]
    os.truncate(path, 4096)
    with pytest.raises(LitPWMError, match="is now 4,096"):
        store[7]


@pytest.mark.faults
@pytest.mark.parametrize("num_workers", [0, 2])
def test_no_process_ends_by_a_signal_where_a_store_shrinks_between_epochs(tmp_path, num_workers):
    path = lengths_store(tmp_path / "s.h5", {"a": [3000] * 8})
    script = f"""
import os, warnings
warnings.simplefilter("ignore")
from datamodules import MultitaskDataModule
from lit_pwm.errors import LitPWMError
data = MultitaskDataModule({path!r}, horizon=5, batch_size=64, batches_per_epoch=20, num_workers={num_workers})
data.setup()
loader = data.train_dataloader()
list(loader)
os.truncate({path!r}, 8192)
try:
    list(loader)
except LitPWMError as error:
    assert "is now 8,192" in str(error)
else:
    raise AssertionError
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=100)


# -- held-out episodes ------------------------------------------------------------------------------------------------
def split_of_old(table, fraction):
    """As it was when all episodes were long enough: which ones are held out is not to change."""
    held = np.zeros(len(table), bool)
    for task, name in enumerate(table.tasks):
        own = np.flatnonzero(table.task == task)
        for store in np.unique(table.store[own]):
            there = own[table.store[own] == store]
            count = min(max(1, round(fraction * len(there))), len(there) - 1)
            seed = np.random.SeedSequence([zlib.crc32(name.encode()), len(there)])
            held[np.random.Generator(np.random.Philox(seed)).permutation(there)[:count]] = True
        if len(own) > 1 and not held[own].any():
            held[own[-1]] = True
    return held


@pytest.mark.parametrize("fraction", [0.05, 0.2, 0.5])
def test_ordinary_stores_are_split_as_before(mixed_store, make_store, fraction):
    second = make_store([("cup-catch", 30)] * 7 + [("walker-walk", 20)], name="second.h5")
    for stores in ([str(mixed_store)], [str(mixed_store), str(second)]):
        data = module(stores, val_fraction=fraction)
        assert data.held_out.tolist() == split_of_old(data.table, fraction).tolist()


def test_held_out_episodes_are_long_enough_for_validation(tmp_path, notices):
    """Which of them are has no influence on how often a short one is drawn: here none ever is."""
    path = lengths_store(tmp_path / "v.h5", {"v": [1, 2, 3, 200] * 5})
    data = module(path, horizon=16)
    assert data.table.length[data.held_out].tolist() == [200]
    assert {len(batch["reward"]) for batch in data.val_dataloader()} == {16}
    assert not any("Validation" in notice for notice in notices)


def test_training_keeps_an_episode_and_says_that_validation_has_none(tmp_path, notices):
    data = module(lengths_store(tmp_path / "w.h5", {"w": [3, 200], "x": [50, 60]}), horizon=16)
    assert data.held_out.tolist()[:2] == [False, False]
    assert data.held_out[2:].sum() == 1
    assert any("Validation has no episode of 'w'" in notice for notice in notices)
    assert {int(task) for batch in data.val_dataloader() for task in batch["task"]} == {1}
    alone = module(lengths_store(tmp_path / "alone.h5", {"w": [3, 200]}), horizon=16)
    assert alone.val_dataloader() == []


def test_fewer_held_out_episodes_than_asked_for_are_said(tmp_path, notices):
    path = lengths_store(tmp_path / "s.h5", {"a": [5] * 17 + [40] * 3})
    data = module(path, val_fraction=0.5)
    assert data.table.length[data.held_out].tolist() == [40] * 3
    assert any("fewer episodes than data.val_fraction asks for of 'a'" in notice for notice in notices)
    assert len(list(data.train_dataloader())) == 40  # on the short ones


def test_short_episodes_of_one_task_do_not_shorten_validation_unless_it_has_no_others(tmp_path, notices):
    tasks = {"long": [40] * 10, "some short": [2] * 30 + [40] * 2}
    data = module(lengths_store(tmp_path / "some.h5", tasks))
    assert {len(batch["reward"]) for batch in data.val_dataloader()} == {16}
    notices.clear()
    data = module(lengths_store(tmp_path / "all.h5", {"long": [40] * 10, "short": [7] * 10}))
    assert {len(batch["reward"]) for batch in data.val_dataloader()} == {7}
    assert notices == [
        "Validation slices of all tasks have 7 transitions instead of 16: no episode of 'short' is longer."
    ]


def test_a_horizon_that_is_too_long_is_not_blamed_on_what_is_held_out(tmp_path):
    path = lengths_store(tmp_path / "s.h5", {"a": [3, 20]})
    with pytest.raises(LitPWMError, match="at most 20"):
        module(path, horizon=21)
    assert module(path, horizon=20, batch_size=1).held_out.tolist() == [False, False]
    with pytest.raises(LitPWMError, match=r"val_horizon is 21, but the longest episode of 'a' has 20"):
        module(path, val_horizon=21)


# -- several stores ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", ["same", "relative", "link", "hard link", "folder's link"])
def test_the_same_store_twice_is_refused(make_store, tmp_path, monkeypatch, kind):
    path = make_store([("cup-catch", 30)] * 4)
    second = tmp_path / "second.h5"
    if kind == "link":
        second.symlink_to(path)
    elif kind == "hard link":
        second.hardlink_to(path)
    elif kind == "folder's link":
        (tmp_path / "folder").symlink_to(tmp_path)
        second = tmp_path / "folder" / path.name
    else:
        monkeypatch.chdir(tmp_path)
        second = path if kind == "same" else Path(path.name)
    with pytest.raises(LitPWMError, match="same file"):
        module([str(path), str(second)])


def test_a_copy_of_a_store_is_said(make_store, tmp_path, notices):
    path = make_store([("cup-catch", 30)] * 4)
    shutil.copy(path, tmp_path / "copy.h5")
    module([str(path), str(tmp_path / "copy.h5")])
    assert any("hold the same episodes" in notice for notice in notices)


def test_stores_of_both_versions_are_used_together(tmp_path):
    old = Path(__file__).parent / "fixtures" / "version_1.h5"
    with EpisodeWriter(tmp_path / "new.h5", tasks={"b/ü": (2, 2), "c": (4, 1)}, action_repeat=4) as writer:
        for task, (obs_dim, action_dim) in writer.tasks.items():
            for _ in range(3):
                writer.append(
                    task=task, obs=np.ones((12, obs_dim)), action=np.ones((11, action_dim)), reward=np.ones(11)
                )
    data = module([str(old), str(tmp_path / "new.h5")], batch_size=8)
    assert data.tasks == {"a": (3, 1), "b/ü": (2, 2), "c": (4, 1)}
    assert {int(task) for batch in data.train_dataloader() for task in batch["task"]} == {0, 1, 2}
    one = module([str(old), str(tmp_path / "new.h5")], batch_size=8, storage="ram")
    for a, b in zip(data.train_dataloader(), one.train_dataloader(), strict=True):
        assert torch.equal(a["obs"], b["obs"])
        break


def test_names_that_differ_in_normalisation_over_stores_are_refused(tmp_path):
    paths = [lengths_store(tmp_path / f"{i}.h5", {name: [30] * 3}) for i, name in enumerate(("é", "e\u0301"))]
    with pytest.raises(LitPWMError, match="normalisation"):
        module(paths)


def test_looking_at_a_batch_costs_little(mixed_store):
    """A small share of gathering it: the bound is loose, for busy machines."""
    import time

    data = module(str(mixed_store), batch_size=256, horizon=16)
    loader = data.train_dataloader()
    batch = loader._slices.batch(0)
    guard = Guard(*data._opened(), data._train_batches)

    def seconds(work):
        return min(_timed(work, time.perf_counter) for _ in range(30))

    looking = seconds(lambda: (guard.require_unchanged(), guard.look(batch, 0)))
    assert looking < 0.5 * seconds(lambda: loader._slices.batch(1))


def _timed(work, clock):
    started = clock()
    work()
    return clock() - started
