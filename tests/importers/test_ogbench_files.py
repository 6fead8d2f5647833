"""OGBench's files, in the layouts of `ogbench.utils.load_dataset` (seohongpark/ogbench)."""

import pickle
import zipfile

import numpy as np
import pytest
from foreign_rows import shown

from datamodules.importers.ogbench import OGBench
from lit_pwm.errors import LitPWMError


def ends(*sizes: int) -> np.ndarray:
    """1 in the last row of pieces of so many rows, as float32."""
    marks = np.zeros(sum(sizes), np.float32)
    marks[np.cumsum(sizes) - 1] = 1
    return marks


@pytest.fixture
def save(tmp_path):
    def make(arrays, name="data.npz", compressed=False):
        (np.savez_compressed if compressed else np.savez)(tmp_path / name, **arrays)
        return tmp_path / name

    return make


@pytest.mark.parametrize("compressed", [False, True])
def test_as_distributed_the_last_row_of_a_piece_is_its_last_observation(save, rows, episodes_of, compressed):
    path = save(rows(7) | {"terminals": ends(4, 3), "masks": np.ones(7)}, compressed=compressed)
    assert OGBench().recognises(path)
    found = shown(episodes_of(OGBench(), path))
    assert found == [([0, 1, 2, 3], [0, 1, 2], False, True), ([4, 5, 6], [4, 5], False, True)]


def test_compact_files_end_pieces_at_invalid_rows(save, rows, episodes_of):
    """There `terminals` is 1 in the row before, too."""
    valids = 1 - ends(4, 3)
    terminals = np.minimum(ends(4, 3) + np.append(ends(4, 3)[1:], 1), 1)
    path = save(rows(7) | {"terminals": terminals, "valids": valids})
    found = shown(episodes_of(OGBench(), path))
    assert found == [([0, 1, 2, 3], [0, 1, 2], False, True), ([4, 5, 6], [4, 5], False, True)]


def test_with_next_observations_no_row_is_lost(save, rows, episodes_of):
    arrays = rows(5)
    following = arrays["observations"] + np.array([100, 1000], np.float32)
    path = save(arrays | {"terminals": ends(3, 2), "next_observations": following})
    found = shown(episodes_of(OGBench(), path))
    assert found == [([0, 1, 2, 102], [0, 1, 2], False, True), ([3, 4, 104], [3, 4], False, True)]


def test_a_mask_of_zero_terminates_only_where_asked(save, rows, episodes_of):
    """The row after it is the last observation, and what follows in the piece is dropped."""
    masks = np.array([1, 0, 1, 0, 1, 1, 1, 1, 0, 1, 1, 0], np.float32)
    path = save(rows(12) | {"terminals": ends(5, 4, 3), "masks": masks})
    assert [e.terminated for e in episodes_of(OGBench(), path)] == [False] * 3
    found = shown(episodes_of(OGBench(), path, masks="terminated"))
    assert found == [
        ([0, 1, 2], [0, 1], True, True),
        ([5, 6, 7, 8], [5, 6, 7], False, True),  # its mask of 0 is of the row that holds no transition
        ([9, 10, 11], [9, 10], False, True),
    ]


def test_masks_with_next_observations_cut_at_their_own_row(save, rows, episodes_of):
    arrays = rows(6)
    following = arrays["observations"] + np.array([100, 1000], np.float32)
    masks = np.array([1, 0, 1, 1, 1, 0], np.float32)
    path = save(arrays | {"terminals": ends(3, 3), "next_observations": following, "masks": masks})
    found = shown(episodes_of(OGBench(), path, masks="terminated"))
    assert found == [([0, 1, 101], [0, 1], True, True), ([3, 4, 5, 105], [3, 4, 5], True, True)]


def test_a_tail_is_a_piece_and_single_rows_are_dropped_and_counted(save, rows, planned, episodes_of):
    terminals = ends(3, 1, 3)
    terminals[-1] = 0
    path = save(rows(7) | {"terminals": terminals})
    found = shown(episodes_of(OGBench(), path))
    assert found == [([0, 1, 2], [0, 1], False, True), ([4, 5, 6], [4, 5], False, True)]
    assert ["1 episodes had nothing left" in notice for notice in planned(OGBench(), path).notices] == [True]


def test_any_episodes_can_be_read_and_several_files_follow_each_other(save, rows, planned):
    first = save(rows(7) | {"terminals": ends(4, 3)})
    second = save(rows(9) | {"terminals": ends(5, 4)}, "data-val.npz", compressed=True)
    plan = planned(OGBench(), first, second)
    assert plan.length.tolist() == [3, 2, 4, 3]
    assert [e.obs[0, 0] for e in plan.episodes(np.array([1, 3]))] == [4, 5]
    assert plan.episode_name(3) == "episode 1 of data-val.npz (from row 5 on)"
    assert plan.files == [first, second]
    task = plan.tasks["t"]
    assert (task.obs_dim, task.action_dim, task.low.tolist(), task.high.tolist()) == (2, 1, [-2], [2])


def test_arrays_in_fortrans_order_are_read(save, rows, episodes_of):
    arrays = rows(4) | {"terminals": ends(4)}
    arrays["observations"] = np.asfortranarray(arrays["observations"])
    assert shown(episodes_of(OGBench(), save(arrays))) == [([0, 1, 2, 3], [0, 1, 2], False, True)]


class Hostile:
    def __reduce__(self):
        return exec, ("raise AssertionError('it was run')",)


def test_what_cannot_be_imported_is_refused_by_name(save, rows, episodes_of, tmp_path):
    good = rows(4) | {"terminals": ends(4)}

    def refused(match, arrays=None, path=None, **options):
        with pytest.raises(LitPWMError, match=match):
            episodes_of(OGBench(), path or save(arrays), **options)

    refused("has no rewards, as OGBench distributes", {k: v for k, v in good.items() if k != "rewards"})
    refused("has no 'masks'", good, masks="terminated")
    refused("has no 'terminals'", rows(4))
    refused(
        r"'observations' .* shape \[4, 8, 8, 3\].*Pixels", good | {"observations": np.zeros((4, 8, 8, 3), np.uint8)}
    )
    refused(r"'actions' .* shape \[4\].*Discrete", good | {"actions": np.zeros(4)})
    refused(r"'rewards' .* shape \[3\], and there are 4", good | {"rewards": np.zeros(3)})
    refused("'terminals' .* is 2.0 in row 1", good | {"terminals": np.array([0, 2.0, 0, 1])})
    refused("names no environment.*--task", good, task=None)
    refused("which bounds.*--action-bounds", good, action_bounds=None)
    refused("bounds of 2 entries", good, action_bounds=((0, 0), (1, 1)))
    refused("is a folder", path=tmp_path)
    (tmp_path / "text.npz").write_text("no zip")
    refused("could not be read as an .npz", path=tmp_path / "text.npz")
    assert not OGBench().recognises(tmp_path / "text.npz")
    hostile = np.empty(4, object)
    hostile[:] = [Hostile()] * 4
    refused("holds object", good | {"rewards": hostile})
    with zipfile.ZipFile(save(good), "a") as file:
        file.writestr("qpos.npy", pickle.dumps(Hostile()))
    with pytest.raises(LitPWMError, match=r"'qpos' .* cannot be read"):
        episodes_of(OGBench(), tmp_path / "data.npz")


def test_a_damaged_array_is_noticed(save, rows, episodes_of):
    path = save(rows(4000) | {"terminals": ends(4000)})
    data = bytearray(path.read_bytes())
    data[8000] ^= 1  # in observations
    path.write_bytes(data)
    with pytest.raises(LitPWMError, match=r"'observations' .* cannot be read: Bad CRC-32"):
        episodes_of(OGBench(), path)
