"""One sound store with everything a store can have, and one fault of each kind planted in it: `data check` names it."""

import os
import time

import h5py
import numpy as np
import pytest
from sealing import seal

from datamodules import EpisodeStore
from datamodules.check import check
from datamodules.importers.importer import ImportedEpisode, ImportedTask, Plan
from datamodules.plan_writing import Output, write_stores
from lit_pwm.cli.main import run as command
from lit_pwm.errors import LitPWMError

TASKS = {"a": ImportedTask(3, 1, spec={"make": "a"}), "b|é": ImportedTask(5, 2, whole_episodes=False)}
LENGTHS, TASK = [4, 6, 5, 7], [0, 1, 0, 1]  # rows 0-4, 5-11, 12-17, 18-25


def episode(number: int) -> ImportedEpisode:
    """The first ends by termination with its last observation, the third without it."""
    rng, task = np.random.default_rng(number), list(TASKS.values())[TASK[number]]
    obs = rng.normal(size=(LENGTHS[number] + 1, task.obs_dim)).astype(np.float32)
    if number == 2:
        obs[-1] = obs[-2]
    action = rng.uniform(-1, 1, (LENGTHS[number], task.action_dim)).astype(np.float32)
    return ImportedEpisode(
        obs, action, rng.normal(size=LENGTHS[number]).astype(np.float32), number in (0, 2), number != 2
    )


@pytest.fixture
def path(tmp_path):
    plan = Plan(
        TASKS, np.array(LENGTHS), np.array(TASK), ["x", "y", "x", "y"], lambda numbers: map(episode, numbers), 2, []
    )
    write_stores([Output(tmp_path / "s.h5", plan, np.arange(4), {"verb": "test"})], progress=False)
    assert check(tmp_path / "s.h5") == []
    return tmp_path / "s.h5"


def put(dataset, place, value, rows=False, sealed=False):
    """Plant a value; sealed, its checksums are right, as if a program had computed it wrongly."""

    def plant(file):
        file[dataset][place] = value
        if sealed:
            seal(file, rows)

    return plant


def attribute(name, change, sealed=False):
    def plant(file):
        file.attrs[name] = change(file.attrs[name])
        if sealed:
            seal(file)

    return plant


def changed(place, difference):
    """A copy of an array in which one number is another."""

    def change(values):
        values = np.array(values)
        values[place] += difference
        return values

    return change


def linked(name, kind):
    def plant(file):
        values = file[name][:]
        other = os.path.join(os.path.dirname(file.filename), "other.h5")
        with h5py.File(other, "w") as elsewhere:
            elsewhere["x"] = values
        del file[name]
        if kind == "external":
            file[name] = h5py.ExternalLink("other.h5", "x")
        elif kind == "soft":
            file["y"] = values
            file[name] = h5py.SoftLink("/y")
        elif kind == "raw":
            file.create_dataset(name, values.shape, values.dtype, external=[(other, 0, h5py.h5f.UNLIMITED)])
        else:
            layout = h5py.VirtualLayout(values.shape, values.dtype)
            layout[...] = h5py.VirtualSource(other, "x", values.shape)
            file.create_virtual_dataset(name, layout)

    return plant


KEPT = "the statistics of the tasks are not as they were written"
OTHER = "the counts, returns and scales of observations that the store keeps are not those of the rows: 'b|é'"
PLANTED = {
    "observation NaN": (put("obs", (7, 4), np.nan), "obs is not finite: 1 rows in 1 episodes (first: episode 1, row 2"),
    "observation infinite": (put("obs", (25, 0), -np.inf), "obs is not finite: 1 rows in 1 episodes (first: episode 3"),
    "action NaN": (put("action", (0, 0), np.nan), "action is not finite before the last row: 1 rows in 1 episodes"),
    "reward infinite": (put("reward", 12, np.inf), "reward is not finite before the last row: 1 rows in 1 episodes"),
    "a last action": (put("action", (4, 0), 0.5), "action is not NaN in the last row: 1 rows in 1 episodes"),
    "a last reward": (put("reward", 17, 0), "reward is not NaN in the last row: 1 rows in 1 episodes"),
    "padding of observations": (put("obs", (1, 4), 1e-30), "obs is not 0 in padding columns: 1 rows in 1 episodes"),
    "padding of actions": (put("action", (17, 1), np.nan), "action is not 0 in padding columns: 1 rows in 1 episodes"),
    "action out of range": (put("action", (5, 0), 1.5), "action of 'b|é' is beyond [-1, 1], from"),
    "reward out of range": (put("reward", 5, -1e9), "reward of 'b|é' is beyond ±22,025.5"),
    "overlapping offsets": (put("episode/offset", 1, 4), "episode/offset is not where the episode before ends: 1 of 4"),
    "offsets out of order": (
        put("episode/offset", slice(1, 3), [12, 5]), "episode/offset is not where the episode before ends: 2 of 4",
    ),
    "an episode too long": (put("episode/length", 3, 9), "episode/length sums to 27 rows, but there are 26"),
    "an episode without actions": (put("episode/length", 3, 1), "episode/length holds episodes of fewer than 2 rows"),
    "a negative length": (put("episode/length", 3, -8), "episode/length holds episodes of fewer than 2 rows"),
    "unknown task": (put("episode/task", 3, 2), "episode/task points to no task: 1 of 4 (first: episode 3)"),
    "negative task": (put("episode/task", 0, -1), "episode/task points to no task: 1 of 4 (first: episode 0)"),
    "terminated within": (put("terminated", 13, 1), "terminated is set before the last row: 1 rows in 1 episodes"),
    "terminated by 2": (put("terminated", 4, 2), "terminated is neither 0 nor 1: 1 rows in 1 episodes"),
    "possible rows changed": (put("obs", (3, 1), 7), "rows have possible values, but not the checksum of what was"),
    "termination removed": (put("terminated", 4, 0), "rows have possible values, but not the checksum of what was"),
    "checksum of rows": (put("episode/checksum", 0, 7), "episode/checksum: not the checksum of what was written"),
    "source renamed": (put("episode/source", 0, b"z"), "episode/source: not the checksum of what was written"),
    "flag of a last observation": (put("episode/last_obs_known", 0, 0), "episode/last_obs_known: not the checksum"),
    "flag beyond 1": (put("episode/last_obs_known", 0, 3), "episode/last_obs_known is neither 0 nor 1: 1 of 4"),
    "flagged and not repeated": (
        put("episode/last_obs_known", 0, 0, sealed=True),
        "obs of an episode whose last_obs_known is 0 is not the row before it repeated: 1 rows in 1 episodes (first: "
        "episode 0, row 4)",
    ),
    "flagged and not terminated": (
        put("terminated", 17, 0, rows=True, sealed=True),
        "last_obs_known is 0 in an episode that did not terminate: 1 rows in 1 episodes (first: episode 2, row 5)",
    ),
    "sum of observations": (put("episode/obs_sum", (3, 0), 1), "episode/obs_sum: not the checksum of what was written"),
    "sum computed wrongly": (
        put("episode/obs_sum", (3, 0), 1, sealed=True),
        "episode/obs_count, obs_sum and obs_m2 are not those of the rows: 8 rows in 1 episodes (first: episode 3",
    ),
    "hash": (attribute("content_hash", lambda text: text[::-1]), f"{KEPT}: content_hash is"),
    "a return's mean": (attribute("return_statistics", changed((1, 0), 0.1)), f"{KEPT}: statistics_checksum"),
    "return computed wrongly": (attribute("return_statistics", changed((1, 0), 0.1), sealed=True), OTHER),
    "least return computed wrongly": (attribute("return_statistics", changed((1, 2), -0.1), sealed=True), OTHER),
    "histogram computed wrongly": (attribute("return_histogram", changed((1, 0), 1), sealed=True), OTHER),
    "count computed wrongly": (attribute("task_episodes", changed(1, 1), sealed=True), OTHER),
    "transitions computed wrongly": (attribute("task_transitions", changed(1, 1), sealed=True), OTHER),
    "terminations computed wrongly": (attribute("task_terminated", changed(1, 1), sealed=True), OTHER),
    "scale computed wrongly": (attribute("obs_std", changed((1, 2), 0.01), sealed=True), OTHER),
    "mean computed wrongly": (attribute("obs_mean", changed((1, 2), 0.01), sealed=True), OTHER),
    "statistics of other widths": (attribute("obs_mean", lambda values: values[:, :2]), f"{KEPT}: obs_mean has type"),
    "statistics missing": (lambda file: file.attrs.__delitem__("obs_std"), "the statistics of the tasks lack obs_std"),
    "a task renamed": (
        lambda file: file.attrs.__setitem__("task_names", np.array(["a", "c"], h5py.string_dtype())),
        "the attributes: not the checksum of what was written",
    ),
    "rows missing": (lambda file: file.__delitem__("reward"), "the dataset 'reward' is missing"),
    "external link": (linked("obs", "external"), "the dataset 'obs' is an external link to another file"),
    "soft link": (linked("episode/length", "soft"), "the dataset 'episode/length' is a soft link"),
    "external storage": (linked("action", "raw"), "action takes its data from other files"),
    "virtual dataset": (linked("episode/task", "virtual"), "episode/task takes its data from other files"),
}  # fmt: skip


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_fault_is_named_and_nothing_is_mended(path, name, capsys):
    plant, expected = PLANTED[name]
    with h5py.File(path, "r+") as file:
        plant(file)
    before, time_before = path.read_bytes(), path.stat().st_mtime_ns
    assert command(["data", "check", str(path)]) == 1
    said = [line.strip() for line in capsys.readouterr().err.splitlines()]
    assert any(line.startswith(expected) for line in said), said
    assert (path.read_bytes(), path.stat().st_mtime_ns) == (before, time_before)


def test_all_that_leaves_the_rows_in_their_places_is_found_together(path):
    names = [
        "observation NaN", "padding of actions", "terminated within", "possible rows changed", "unknown task",
        "sum of observations", "action out of range",
    ]  # fmt: skip
    with h5py.File(path, "r+") as file:
        for name in names:
            PLANTED[name][0](file)
    faults = check(path)
    assert all(any(fault.startswith(PLANTED[name][1]) for fault in faults) for name in names), faults


def test_wrong_statistics_of_a_task_are_found_beside_faulty_rows_of_another(path):
    with h5py.File(path, "r+") as file:
        PLANTED["return computed wrongly"][0](file)
        PLANTED["a last action"][0](file)  # of the other task
    faults = check(path)
    assert len(faults) == 2
    assert OTHER in faults


@pytest.mark.parametrize("kept", [0.01, 0.3, 0.6, 0.99])
def test_a_truncated_file_is_no_store_or_has_faults(path, kept):
    os.truncate(path, int(path.stat().st_size * kept))
    assert command(["data", "check", str(path)]) in (1, 2)


@pytest.mark.parametrize("content", [b"", b"no HDF5", None])
def test_what_is_no_store_is_no_faulty_store(path, content):
    if content is None:
        with h5py.File(path, "w") as file:
            file["obs"] = np.zeros(3)
    else:
        path.write_bytes(content)
    assert command(["data", "check", str(path)]) == 2


def test_a_file_that_changes_while_it_is_checked(path):
    def write(rows):
        time.sleep(0.01)  # the clock of file systems ticks every few milliseconds
        with path.open("r+b") as file:
            file.write(file.read(1)) and file.seek(0)

    (fault,) = check(path, write)
    assert fault.startswith("the file did not stay as it was while it was read")


def test_a_file_that_changes_under_a_reader(path):
    store = EpisodeStore(path)
    assert len(store[0]) == 4
    time.sleep(0.01)
    with h5py.File(path, "r+") as file:
        file["obs"][0, 0] = 3
    with pytest.raises(LitPWMError, match="was written to since it was opened"):
        store.require_unchanged()
    with pytest.raises(LitPWMError, match="was written to since it was opened"):
        store[0]
