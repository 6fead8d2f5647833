"""D4RL's files, as `OfflineEnv.get_dataset` reads them (Farama-Foundation/D4RL)."""

import h5py
import numpy as np
import pytest
from foreign_rows import shown

from datamodules.importers.d4rl import D4RL
from datamodules.importers.ogbench import OGBench
from lit_pwm.errors import LitPWMError


def marks(count: int, *rows: int) -> np.ndarray:
    out = np.zeros(count, bool)
    out[list(rows)] = True
    return out


@pytest.fixture
def save(tmp_path):
    def make(arrays, name="data.hdf5", **how):
        with h5py.File(tmp_path / name, "w") as file:
            for key, values in arrays.items():
                file.create_dataset(key, data=values, **how)
            file.create_group("metadata")["algorithm"] = "SAC"
        return tmp_path / name

    return make


def test_terminals_and_timeouts_end_episodes_and_a_tail_is_one(save, rows, episodes_of):
    """Without next observations a terminated episode keeps its last row; another gives it up as an observation."""
    path = save(rows(9) | {"terminals": marks(9, 2), "timeouts": marks(9, 5)})
    assert D4RL().recognises(path)
    assert not OGBench().recognises(path)
    assert shown(episodes_of(D4RL(), path)) == [
        ([0, 1, 2, 2], [0, 1, 2], True, False),
        ([3, 4, 5], [3, 4], False, True),
        ([6, 7, 8], [6, 7], False, True),
    ]


def test_with_next_observations_no_row_is_lost(save, rows, episodes_of):
    arrays = rows(6)
    following = arrays["observations"] + np.array([100, 1000], np.float32)
    path = save(
        arrays | {"terminals": marks(6, 2), "timeouts": marks(6, 4), "next_observations": following},
        chunks=True,
        compression="gzip",
    )
    assert shown(episodes_of(D4RL(), path)) == [
        ([0, 1, 2, 102], [0, 1, 2], True, True),
        ([3, 4, 104], [3, 4], False, True),
        ([5, 105], [5], False, True),
    ]


def test_a_row_that_terminates_and_times_out_terminated(save, rows, episodes_of):
    path = save(rows(3) | {"terminals": marks(3, 2), "timeouts": marks(3, 2)})
    assert shown(episodes_of(D4RL(), path)) == [([0, 1, 2, 2], [0, 1, 2], True, False)]


def test_without_timeouts_the_time_limit_is_asked_for(save, rows, episodes_of):
    path = save(rows(10) | {"terminals": marks(10, 1, 8)})
    with pytest.raises(LitPWMError, match=r"no `timeouts`.*--episode-length N"):
        episodes_of(D4RL(), path)
    assert shown(episodes_of(D4RL(), path, episode_length=3)) == [
        ([0, 1, 1], [0, 1], True, False),
        ([2, 3, 4], [2, 3], False, True),  # the third row of it, from its own start
        ([5, 6, 7], [5, 6], False, True),
        ([8, 8], [8], True, False),
    ]


def test_an_episode_with_nothing_left_is_dropped_and_counted(save, rows, planned, episodes_of):
    path = save(rows(5) | {"terminals": marks(5, 4), "timeouts": marks(5, 0, 3)})
    assert shown(episodes_of(D4RL(), path)) == [([1, 2, 3], [1, 2], False, True), ([4, 4], [4], True, False)]
    assert planned(D4RL(), path).notices == [
        "1 episodes had nothing left and were dropped: a single row, with nothing after it."
    ]


def test_columns_of_width_one_are_read_as_the_project_reads_them(save, rows, episodes_of):
    arrays = rows(3)
    arrays["rewards"] = arrays["rewards"][:, None]
    path = save(arrays | {"terminals": marks(3)[:, None], "timeouts": marks(3, 2)})
    assert shown(episodes_of(D4RL(), path)) == [([0, 1, 2], [0, 1], False, True)]


def test_what_lies_in_other_files_is_refused(save, rows, episodes_of, tmp_path):
    arrays = rows(4) | {"terminals": marks(4), "timeouts": marks(4, 3)}
    other = save(arrays, "other.hdf5")
    rest = {key: values for key, values in arrays.items() if key != "observations"}
    path = tmp_path / "data.hdf5"

    def refused(match):
        with pytest.raises(LitPWMError, match=match):
            episodes_of(D4RL(), path)
        path.unlink()

    save(rest)
    with h5py.File(path, "a") as file:
        file["observations"] = h5py.ExternalLink(other, "observations")
    assert D4RL().recognises(path)
    refused(r"'observations' in .* is an external link")
    save(rest)
    with h5py.File(path, "a") as file:
        file["observations"] = h5py.SoftLink("/actions")
    refused(r"'observations' in .* is a soft link")
    save(rest)
    with h5py.File(path, "a") as file:
        layout = h5py.VirtualLayout((4, 2), "f4")
        layout[:] = h5py.VirtualSource(other, "observations", (4, 2))
        file.create_virtual_dataset("observations", layout)
    refused(r"'observations' in .* is a virtual dataset")
    save(rest)
    (tmp_path / "raw").write_bytes(arrays["observations"].tobytes())
    with h5py.File(path, "a") as file:
        file.create_dataset("observations", (4, 2), "f4", external=[(tmp_path / "raw", 0, 32)])
    refused(r"'observations' in .* lies in external storage")
    save(arrays)
    with h5py.File(path, "a") as file:  # also where it is not needed
        file["next_observations"] = h5py.ExternalLink(other, "observations")
    refused(r"'next_observations' in .* is an external link")


def test_what_cannot_be_imported_is_refused_by_name(save, rows, episodes_of, tmp_path):
    good = rows(4) | {"terminals": marks(4), "timeouts": marks(4, 3)}

    def refused(match, arrays=None, **options):
        with pytest.raises(LitPWMError, match=match):
            episodes_of(D4RL(), save(arrays), **options)

    refused("has no 'terminals'", {key: values for key, values in good.items() if key != "terminals"})
    refused(r"has `timeouts`.*Leave the option out", good, episode_length=3)
    refused(r"'timeouts' .* shape \[3\], and there are 4", good | {"timeouts": marks(3)})
    refused(r"'next_observations' .* shape \[4, 3\]", good | {"next_observations": np.zeros((4, 3))})
    refused("'terminals' .* is 2 in row 1", good | {"terminals": np.array([0, 2, 0, 0])})
    refused("holds no rows", {key: values[:0] for key, values in good.items()})
    refused(r"names no environment.*--task", good, task=None)
    refused(r"which bounds.*--action-bounds", good, action_bounds=None)
    with h5py.File(tmp_path / "data.hdf5", "a") as file:
        del file["observations"]
        file.create_group("observations")["achieved_goal"] = good["observations"]
    with pytest.raises(LitPWMError, match=r"'observations' in .* is a group"):
        episodes_of(D4RL(), tmp_path / "data.hdf5")
    (tmp_path / "text.hdf5").write_text("no HDF5")
    with pytest.raises(LitPWMError, match="could not be read as HDF5"):
        episodes_of(D4RL(), tmp_path / "text.hdf5")


def test_files_of_other_widths_are_no_one_task(save, rows, episodes_of):
    marked = {"terminals": marks(4), "timeouts": marks(4, 3)}
    other = rows(4) | marked | {"actions": np.zeros((4, 3))}
    with pytest.raises(LitPWMError, match=r"differ in the widths.*\(2, 1\).*\(2, 3\)"):
        episodes_of(D4RL(), save(rows(4) | marked), save(other, "other.hdf5"))
