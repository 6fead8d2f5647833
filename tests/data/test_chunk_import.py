"""TD-MPC2's chunks in: every episode once, rows shifted, the task set told by the data, nothing in a file run."""

import json
import os
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
from chunk_files import chunk_arrays
from tensordict_pickles import save_tensordict

from datamodules import EpisodeStore
from datamodules.check import check
from datamodules.importers.tdmpc2_chunk import read_chunk
from datamodules.importing import import_data
from lit_pwm.cli.main import run
from lit_pwm.errors import LitPWMError
from lit_pwm.tasks.registry import TASK_SETS, task_spec

CHUNKS = Path(__file__).parent / "chunks"
MADE_BY_TENSORDICT = sorted(CHUNKS.glob("*.pt"))
TASKS = {0: (24, 6), 4: (6, 2), 8: (5, 1)}  # of chunks/make.py


def imported(sources, out, **options):
    return import_data(sources, out, progress=False, **options)


def test_there_are_chunks_of_all_versions():
    assert {path.stem for path in MADE_BY_TENSORDICT} == {
        f"tensordict_{version}_{kind}" for version in ("01", "03", "15") for kind in ("zip", "legacy")
    }


@pytest.mark.parametrize("path", MADE_BY_TENSORDICT, ids=lambda path: path.stem)
def test_a_chunk_that_tensordict_wrote_is_read_as_it_was_made(path, tmp_path):
    store = imported([path], tmp_path / "s.h5")
    assert check(tmp_path / "s.h5") == []
    assert [episode.task for episode in store] == [TASK_SETS["mt30"][number] for number in (8, 0, 4, 8)]
    for number, (episode, task) in enumerate(zip(store, (8, 0, 4, 8), strict=True)):
        obs_dim, action_dim = TASKS[task]
        row = np.arange(4)[:, None]
        assert np.array_equal(episode.obs, np.float32(number + row / 8 + np.arange(obs_dim) / 256))
        wanted = np.float32((row + np.arange(action_dim)) / 16 - number / 4)[1:]  # the file's row t + 1 is our row t
        assert np.array_equal(episode.action, wanted)
        assert np.array_equal(episode.reward, np.float32(number + row[1:, 0] / 4))
        assert not episode.terminated
        assert episode.last_obs_known


@pytest.mark.parametrize("filler", [np.nan, 1e9, np.inf, 0.5])
@pytest.mark.parametrize("zipped", [True, False])
def test_row_0_is_dropped_by_index_whatever_it_holds(tmp_path, filler, zipped):
    arrays = chunk_arrays([3, 12], rows=5)
    arrays["action"][:, 0] = arrays["reward"][:, 0] = filler
    save_tensordict(tmp_path / "chunk_0.pt", arrays, zipped)
    store = imported([tmp_path], tmp_path / "s.h5")
    for number, episode in enumerate(store):
        _, action_dim = store.tasks[episode.task]
        assert np.array_equal(episode.reward, arrays["reward"][number, 1:])
        assert np.array_equal(episode.action, arrays["action"][number, 1:, :action_dim])


def test_several_chunks_come_in_numeric_order_and_every_episode_once(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    wanted = []
    for number in (0, 2, 10, 9, 1):
        arrays = chunk_arrays([number % 3] * (1 + number % 2), rows=4, seed=number)
        save_tensordict(folder / f"chunk_{number}.pt", arrays, zipped=number % 2 == 0)
        wanted.append((number, arrays["reward"][:, 1:]))
    rewards = np.concatenate([rows for _, rows in sorted(wanted, key=lambda one: one[0])])
    store = imported([folder], tmp_path / "s.h5")
    assert np.array_equal(np.array([episode.reward for episode in store]), rewards)
    by_hand = imported([folder / f"chunk_{number}.pt" for number in (10, 1, 0, 9, 2)], tmp_path / "t.h5")
    assert (tmp_path / "t.h5").read_bytes() == (tmp_path / "s.h5").read_bytes()
    assert len(by_hand) == len(rewards)


def test_tasks_and_limit_choose_episodes(tmp_path):
    save_tensordict(tmp_path / "chunk_0.pt", chunk_arrays([0, 4, 0, 8, 4], rows=4))
    names = TASK_SETS["mt30"]
    store = imported([tmp_path], tmp_path / "s.h5", tasks=[names[4], names[0]], limit=3)
    assert [episode.task for episode in store] == [names[0], names[4], names[0]]
    assert list(store.tasks) == [names[0], names[4]]
    with pytest.raises(LitPWMError, match=r"no episode of 'walker-run'.*5 of walker-stand, reacher-easy, cartpole-ba"):
        imported([tmp_path], tmp_path / "t.h5", tasks=["walker-run"])
    with pytest.raises(LitPWMError, match=r"no task 'walker-rum'.*Did you mean 'walker-run'"):
        imported([tmp_path], tmp_path / "t.h5", tasks=["walker-rum"])


def test_padding_of_actions_is_ours(tmp_path):
    arrays = chunk_arrays([4], rows=4)
    arrays["action"][:, :, 2:] = 7.0
    save_tensordict(tmp_path / "chunk_0.pt", arrays)
    assert imported([tmp_path], tmp_path / "s.h5")[0].action.shape == (3, 2)
    assert check(tmp_path / "s.h5") == []


def test_pieces_of_episodes_are_said_to_be_pieces(tmp_path):
    save_tensordict(tmp_path / "chunk_0.pt", chunk_arrays([0, 40], rows=101, obs_width=39))
    store = imported([tmp_path], tmp_path / "s.h5")
    assert list(store.tasks) == [TASK_SETS["mt80"][0], TASK_SETS["mt80"][40]]
    assert store.whole_episodes.tolist() == [False, True]  # of 500 steps, in pieces of 100; Meta-World's have 100
    assert store.tasks[TASK_SETS["mt80"][40]] == (39, 4)
    assert store.task_specs[TASK_SETS["mt80"][0]]["episode_length"] == 500


# -- the task set -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("ids", "rows", "width", "options", "said"),
    [
        ([0], 501, 24, {"task_set": "mt80"}, "'mt80' (--task-set) contradicts the data, which is of mt30"),
        ([0], 101, 39, {"task_set": "mt30"}, "'mt30' (--task-set) contradicts the data, which is of mt80"),
        ([0], 101, 24, {}, "tells of different task sets (mt30: observations of 24 entries; mt80: 101 rows"),
        ([35], 9, 24, {}, "tells of different task sets (mt30: observations of 24 entries; mt80: a task of id 35)"),
        ([0], 9, 30, {}, "is of no task set that is known: observations of 30"),
        ([80], 101, 39, {}, "whose ids go from 0 to 79, but has ids from 80 to 80"),
        ([-1], 9, 24, {}, "has ids from -1 to -1"),
        ([0], 9, 24, {"task_set": "mt50"}, "The task set 'mt50' (--task-set) is not known"),
    ],
)
def test_a_contradiction_of_the_task_set_is_said(tmp_path, ids, rows, width, options, said):
    save_tensordict(tmp_path / "chunk_0.pt", chunk_arrays(ids, rows, width))
    with pytest.raises(LitPWMError) as caught:
        imported([tmp_path], tmp_path / "s.h5", options=options)
    assert said in str(caught.value)
    assert not (tmp_path / "s.h5").exists()


@pytest.mark.parametrize("name", ["mt30", "TDMPC2-MT30"])
def test_a_folder_that_says_another_set_is_refused(tmp_path, name):
    (tmp_path / name).mkdir()
    save_tensordict(tmp_path / name / "chunk_0.pt", chunk_arrays([0, 40], rows=101, obs_width=39))
    with pytest.raises(LitPWMError, match=rf"The name '{name}' .* says mt30, but the data is of mt80"):
        imported([tmp_path / name], tmp_path / "s.h5")
    assert len(imported([tmp_path / name], tmp_path / "s.h5", options={"task_set": "mt80"})) == 2


def test_numbers_beyond_a_tasks_width_are_refused(tmp_path):
    arrays = chunk_arrays([4], rows=4)
    arrays["obs"][0, 2, 10] = 1.0
    save_tensordict(tmp_path / "chunk_0.pt", arrays)
    with pytest.raises(LitPWMError, match=r"episode 0 of .*beyond the 6 entries of 'reacher-easy', which is task 4"):
        imported([tmp_path], tmp_path / "s.h5")


# -- files that are not what they should be ---------------------------------------------------------------------------
def test_chunks_of_different_data_are_refused(tmp_path):
    save_tensordict(tmp_path / "chunk_0.pt", chunk_arrays([0], rows=4))
    save_tensordict(tmp_path / "chunk_1.pt", chunk_arrays([0], rows=5))
    with pytest.raises(LitPWMError, match=r"The chunks are of different data: .*_0.pt' has 4 rows.*_1.pt' has 5"):
        imported([tmp_path], tmp_path / "s.h5")


def test_a_file_named_twice_is_refused(tmp_path):
    save_tensordict(tmp_path / "chunk_0.pt", chunk_arrays([0], rows=4))
    (tmp_path / "link.pt").symlink_to(tmp_path / "chunk_0.pt")
    with pytest.raises(LitPWMError, match="are the same file, which would be imported twice"):
        imported([tmp_path, tmp_path / "link.pt"], tmp_path / "s.h5")


@pytest.mark.parametrize("key", ["obs", "action", "reward"])
def test_numbers_that_are_not_finite_are_refused_by_place(tmp_path, key):
    arrays = chunk_arrays([0, 4], rows=6)
    arrays[key].reshape(2, 6, -1)[1, 3, 0] = np.nan
    save_tensordict(tmp_path / "chunk_0.pt", arrays)
    with pytest.raises(LitPWMError, match=rf"The {key} of episode 1 of .*chunk_0.pt' \('reacher-easy'\) holds nan at"):
        imported([tmp_path], tmp_path / "s.h5")


def test_a_task_that_changes_within_an_episode_is_refused(tmp_path):
    arrays = chunk_arrays([0, 4], rows=6)
    arrays["task"][1, 3] = 5
    save_tensordict(tmp_path / "chunk_0.pt", arrays)
    with pytest.raises(LitPWMError, match=r"Episode 1 of .* has the tasks \[4, 5\]"):
        imported([tmp_path], tmp_path / "s.h5")


@pytest.mark.parametrize("zipped", [True, False])
def test_a_file_that_is_cut_off_is_refused(tmp_path, zipped):
    save_tensordict(tmp_path / "chunk_0.pt", chunk_arrays([0] * 20, rows=6), zipped)
    data = (tmp_path / "chunk_0.pt").read_bytes()
    (tmp_path / "chunk_0.pt").write_bytes(data[: len(data) // 2])
    for options in ({}, {"format": "tdmpc2"}):
        with pytest.raises(LitPWMError, match=r"is of no format|could not be read as a chunk"):
            imported([tmp_path], tmp_path / "s.h5", **options)


class Hostile:
    """Unpickled, it would make a file."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("place", ["beside", "within", "alone"])
def test_a_hostile_chunk_is_refused_and_has_run_nothing(tmp_path, zipped, place):
    marker, arrays = tmp_path / "ran", chunk_arrays([0], rows=4)
    tensors = {key: torch.from_numpy(value) for key, value in arrays.items()}
    hostile = Hostile(marker)
    content = {"beside": {**tensors, "extra": hostile}, "within": {**tensors, "obs": hostile}, "alone": hostile}[place]
    torch.save(content, tmp_path / "chunk_0.pt", _use_new_zipfile_serialization=zipped)
    for options in ({}, {"format": "tdmpc2"}):
        with pytest.raises(LitPWMError, match=r"it names 'posix.system'|is of no format that can be imported"):
            imported([tmp_path / "chunk_0.pt"], tmp_path / "s.h5", **options)
    assert not marker.exists()
    with pytest.raises(LitPWMError, match=r"it names 'posix.system'.*nothing in the file has been run"):
        imported([tmp_path / "chunk_0.pt"], tmp_path / "s.h5", format="tdmpc2")
    torch.load(tmp_path / "chunk_0.pt", weights_only=False)
    assert marker.exists()  # so that the test means something


def test_a_subclass_of_dict_in_place_of_tensordicts_own_is_refused(tmp_path):
    save_tensordict(tmp_path / "chunk_0.pt", chunk_arrays([0], rows=4), named=("collections", "UserDict"))
    with pytest.raises(LitPWMError, match=r"it names 'collections.UserDict'"):
        imported([tmp_path], tmp_path / "s.h5", format="tdmpc2")


def test_what_fits_no_format_names_those_tried(tmp_path, capsys):
    (tmp_path / "a.pt").write_bytes(b"nothing")
    assert run(["data", "import", str(tmp_path / "a.pt"), "--out", str(tmp_path / "s.h5")]) == 2
    assert "is of no format that can be imported. Tried: tdmpc2" in " ".join(capsys.readouterr().err.split())
    assert run(["data", "import", str(tmp_path / "none.pt"), "--out", str(tmp_path / "s.h5")]) == 2
    assert "none.pt', does" in " ".join(capsys.readouterr().err.split())
    assert run(["data", "import", str(tmp_path / "a.pt"), "--out", str(tmp_path / "s.h5"), "--format", "tdmpc"]) == 2
    assert "Did you mean 'tdmpc2'?" in " ".join(capsys.readouterr().err.split())


def test_the_verb_imports_and_says_what_there_is(tmp_path, capsys):
    out = tmp_path / "s.h5"
    words = [
        "data",
        "import",
        *map(str, MADE_BY_TENSORDICT[:2]),
        "--out",
        str(out),
        "--task-set",
        "mt30",
        "--limit",
        "6",
    ]
    assert run(words) == 0
    said = capsys.readouterr()
    assert "6 episodes of 3 tasks, 18 transitions in 24 rows" in said.out
    assert "2 of 4 chunks hold 8 of the 690,000 episodes of mt30" in said.err
    assert run(words) == 2
    assert "exists already" in " ".join(capsys.readouterr().err.split())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["s.h5", "s.json"]
    made = json.loads((tmp_path / "s.json").read_text())
    assert [Path(name).name for name, _, _ in made["files"]] == [path.name for path in MADE_BY_TENSORDICT[:2]]
    assert (made["importer"], made["options"], made["limit"]) == ("tdmpc2", {"task_set": "mt30"}, 6)
    assert all(words in said.err for words in ("Writing s.h5", "Checking s.h5", "24/24 rows"))
    assert EpisodeStore(out).tasks == {"walker-stand": (24, 6), "reacher-easy": (6, 2), "cartpole-balance": (5, 1)}
    assert task_spec("walker-stand").episode_length == 500


@pytest.mark.parametrize("zipped", [True, False])
def test_one_chunk_at_most_is_held_and_a_zip_file_is_mapped(tmp_path, monkeypatch, zipped):
    for number in range(3):
        save_tensordict(tmp_path / f"chunk_{number}.pt", chunk_arrays([0, 4, 8], 50, seed=number), zipped)
    held, mapped = [], []

    def looked_at(path):
        assert not [one for one in held if one() is not None]  # nothing has the memory of the chunks before
        chunk = read_chunk(path)
        held.extend(weakref.ref(array.base) for array in (chunk.obs, chunk.action, chunk.reward))
        mapped.append(str(path) in Path("/proc/self/maps").read_text())
        return chunk

    monkeypatch.setattr("datamodules.importers.tdmpc2.read_chunk", looked_at)
    assert len(imported([tmp_path], tmp_path / "s.h5")) == 9
    assert mapped == [zipped] * 6  # each file twice: to plan, and to read
