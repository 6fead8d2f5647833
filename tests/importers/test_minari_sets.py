"""Data sets that Minari wrote (tests/fixtures_minari/write_minari.py), in each of its storages."""

import json
import tarfile
from pathlib import Path

import gymnasium.spaces as gym_spaces
import h5py
import numpy as np
import pytest

from datamodules.importers.minari import Minari
from lit_pwm.errors import LitPWMError
from lit_pwm.tasks.flat_space import flattened, space_parts

FIXTURES = Path(__file__).parents[1] / "fixtures_minari" / "data_sets.tar.xz"
STORAGES = ("hdf5", "arrow", "parquet")
SPACE = gym_spaces.Dict(
    [
        ("observation", gym_spaces.Box(-np.inf, np.inf, (3,), np.float64)),
        (
            "goal",
            gym_spaces.Dict(
                [("z", gym_spaces.Box(-1, 1, (1, 2), np.float32)), ("kind", gym_spaces.Discrete(3, start=1))]
            ),
        ),
        ("achieved_goal", gym_spaces.Box(-np.inf, np.inf, (2,), np.float64)),
    ]
)
"""Of the environment with which the data was made; neither its order nor a sorted one is the files'."""


@pytest.fixture
def sets(tmp_path) -> Path:
    with tarfile.open(FIXTURES) as file:
        file.extractall(tmp_path, filter="data")
    return tmp_path


def observed(number, step):
    row = 100 * number + step
    goal = {"z": np.array([[row / 4096, -row / 4096]], np.float32), "kind": 1 + step % 3}
    return {"observation": row + np.arange(3.0), "goal": goal, "achieved_goal": -row - np.arange(2.0)}


@pytest.mark.parametrize("storage", STORAGES)
def test_episodes_come_by_id_flattened_as_the_environment_s_own_space(sets, planned, episodes_of, storage):
    path = sets / f"reaching_{storage}"
    assert Minari().recognises(path)
    plan = planned(Minari(), path, task="reach", action_bounds=None)
    episodes = episodes_of(Minari(), path, task="reach", action_bounds=None)
    assert plan.length.tolist() == [2 + number % 4 for number in range(11)]
    assert set(plan.source) == {f"reaching/{storage}-v0"}
    for number, episode in enumerate(episodes):
        steps = range(3 + number % 4)
        expected = [gym_spaces.flatten(SPACE, observed(number, step)) for step in steps]
        np.testing.assert_array_equal(episode.obs, expected)
        np.testing.assert_array_equal(episode.reward, number + np.arange(1, len(steps)) / 16)
        assert (episode.terminated, episode.last_obs_known) == (number % 2 == 1, True)
        assert episode.action.shape == (len(steps) - 1, 2)
        assert (episode.action >= [-2, 0]).all()
        assert (episode.action <= [2, 1]).all()
    task = plan.tasks["reach"]
    assert (task.obs_dim, task.low.tolist(), task.high.tolist()) == (10, [-2, 0], [2, 1])
    assert task.spec == {"obs_order": ["observation", "goal/z", "goal/kind", "achieved_goal"]}
    assert plan.episode_name(10) == f"episode 10 of {str(path)!r}"


def test_storages_give_the_same_numbers(sets, episodes_of):
    one, *others = ([*episodes_of(Minari(), sets / f"reaching_{storage}")] for storage in STORAGES)
    for other in others:
        for mine, theirs in zip(one, other, strict=True):
            np.testing.assert_array_equal(mine.action, theirs.action)
            np.testing.assert_array_equal(mine.obs, theirs.obs)


def test_the_environment_names_the_task(sets, planned):
    plan = planned(Minari(), sets / "pendulum", task=None, action_bounds=None)
    assert list(plan.tasks) == ["gym:Pendulum-v1"]
    task = plan.tasks["gym:Pendulum-v1"]
    assert (task.obs_dim, task.action_dim, task.low.tolist(), task.high.tolist()) == (3, 1, [-2], [2])
    made = {"make": "gymnasium:make", "kwargs": {"id": "Pendulum-v1"}, "action_repeat": 1}
    assert task.spec == made | {"episode_length": 4}
    assert plan.length.tolist() == [4, 4]


def test_several_sets_are_one_after_another(sets, planned):
    with pytest.raises(LitPWMError, match=r"names no environment.*--task"):
        planned(Minari(), sets / "pendulum", sets / "reaching_hdf5", task=None, action_bounds=None)
    with pytest.raises(LitPWMError, match=r"of one task 'x' and differ"):
        planned(Minari(), sets / "pendulum", sets / "reaching_hdf5", task="x", action_bounds=None)
    plan = planned(Minari(), sets / "reaching_arrow", sets / "reaching_hdf5", task="x", action_bounds=None)
    assert len(plan.length) == 22
    assert [e.obs[0, 0] for e in plan.episodes(np.array([10, 12]))] == [1000, 100]


def test_spaces_of_other_kinds_are_flattened_as_gymnasium_does():
    described = {
        "type": "Tuple",
        "subspaces": [
            {"type": "MultiBinary", "n": [2, 2]},
            {"type": "MultiDiscrete", "dtype": "int64", "nvec": [2, 3], "start": [0, 5]},
            {"type": "Box", "dtype": "float32", "shape": [], "low": 0.0, "high": 1.0},
        ],
    }
    space = gym_spaces.Tuple(
        [
            gym_spaces.MultiBinary([2, 2]),
            gym_spaces.MultiDiscrete([2, 3], start=[0, 5]),
            gym_spaces.Box(0, 1, (), np.float32),
        ]
    )
    space.seed(0)
    samples = [space.sample() for _ in range(20)]
    columns = [np.array([sample[i] for sample in samples]) for i in range(3)]
    found = flattened(space_parts(described, "space"), lambda keys: columns[keys[0]], "samples")
    np.testing.assert_array_equal(found, [gym_spaces.flatten(space, sample) for sample in samples])


def change(path, **changes):
    metadata = json.loads((path / "data/metadata.json").read_text()) | changes
    metadata = {key: value for key, value in metadata.items() if value is not None}
    (path / "data/metadata.json").write_text(json.dumps(metadata))


def box(**changes):
    return json.dumps({"type": "Box", "dtype": "float32", "shape": [2], "low": [-2, 0], "high": [2, 1]} | changes)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"data_format": "zarr"}, "keeps its data as 'zarr'; hdf5, arrow, parquet are read"),
        ({"total_episodes": 12}, "says that it has 12 episodes, and 11 are there"),
        ({"observation_space": None}, "does not describe its observation_space.*--action-bounds"),
        ({"observation_space": box(dtype="uint8", shape=[8, 8, 3])}, "holds pixels"),
        ({"observation_space": json.dumps({"type": "Text"})}, "is of the kind Text"),
        ({"action_space": json.dumps({"type": "Discrete", "n": 3})}, "is of the kind Discrete"),
        ({"action_space": box(high=[float("inf"), 1])}, r"which bounds.*--action-bounds"),
        ({"action_space": box(shape=[3], low=[0] * 3, high=[1] * 3)}, r"the actions of .* has shape"),
    ],
    ids=range(8),
)
@pytest.mark.parametrize("storage", ["hdf5", "arrow"])
def test_what_cannot_be_imported_is_refused_by_name(sets, episodes_of, storage, changes, match):
    path = sets / f"reaching_{storage}"
    change(path, **changes)
    with pytest.raises(LitPWMError, match=match):
        episodes_of(Minari(), path, action_bounds=None)


def test_bounds_that_are_given_stand_for_those_that_are_missing(sets, planned):
    change(sets / "reaching_hdf5", action_space=box(high=[float("inf"), 1]))
    task = planned(Minari(), sets / "reaching_hdf5", action_bounds=((-2, 0), (2, 3))).tasks["t"]
    assert (task.low.tolist(), task.high.tolist()) == ([-2, 0], [2, 3])


@pytest.mark.parametrize("missing", [("observation_space", "action_space"), ("observation_space",), ("action_space",)])
def test_without_spaces_plain_arrays_are_read_where_bounds_are_given(sets, episodes_of, missing):
    path, bounds = sets / "pendulum", ((-2,), (2,))
    described = episodes_of(Minari(), path, action_bounds=None)
    change(path, **dict.fromkeys(missing))
    for one, other in zip(episodes_of(Minari(), path, action_bounds=bounds), described, strict=True):
        np.testing.assert_array_equal(one.obs, other.obs)
        np.testing.assert_array_equal(one.action, other.action)


@pytest.mark.parametrize("storage", STORAGES)
def test_without_spaces_parts_of_observations_are_refused(sets, episodes_of, storage):
    path = sets / f"reaching_{storage}"
    change(path, observation_space=None, action_space=None)
    with pytest.raises(LitPWMError, match="does not describe the space of its observations, and they are no plain"):
        episodes_of(Minari(), path, action_bounds=((-2,), (2,)))


def test_without_spaces_whole_numbers_are_refused(sets, episodes_of):
    path = sets / "pendulum"
    change(path, observation_space=None, action_space=None)
    with h5py.File(path / "data/main_data.hdf5", "a") as file:
        actions = file["episode_0/actions"][()]
        del file["episode_0/actions"]
        file["episode_0/actions"] = actions.astype(np.int64)
    with pytest.raises(LitPWMError, match="space of its actions, which are of type int64"):
        episodes_of(Minari(), path, action_bounds=((-2,), (2,)))


def test_an_episode_that_goes_on_after_its_termination_is_refused(sets, episodes_of):
    with h5py.File(sets / "reaching_hdf5/data/main_data.hdf5", "a") as file:
        file["episode_3/terminations"][1] = True
    with pytest.raises(LitPWMError, match=r"`terminations` of episode 3 .* set in row 1, and it goes on to row 4"):
        episodes_of(Minari(), sets / "reaching_hdf5", action_bounds=None)


def test_what_lies_in_other_files_is_refused(sets, episodes_of):
    path = sets / "reaching_hdf5/data/main_data.hdf5"
    with h5py.File(path, "a") as file:
        del file["episode_2"]
        file["episode_2"] = h5py.ExternalLink(sets / "pendulum/data/main_data.hdf5", "episode_0")
    with pytest.raises(LitPWMError, match=r"'episode_2' in .* is an external link"):
        episodes_of(Minari(), sets / "reaching_hdf5", action_bounds=None)


def test_other_folders_are_not_recognised(sets, tmp_path):
    assert not Minari().recognises(sets)
    assert not Minari().recognises(sets / "pendulum/data/main_data.hdf5")
    (sets / "pendulum/data/metadata.json").unlink()
    assert Minari().recognises(sets / "pendulum")  # of older versions, which is said
    with pytest.raises(LitPWMError, match=r"has no data/metadata.json"):
        Minari().plan([sets / "pendulum"], {"task": None, "action_bounds": None})


def test_its_env_spec_names_the_environment_and_what_it_names_besides_is_not_followed(tmp_path):
    import json
    import tarfile

    from support import ROOT

    from datamodules.importing import import_data

    with tarfile.open(ROOT / "tests/fixtures_minari/data_sets.tar.xz") as file:
        file.extractall(tmp_path, filter="data")
    metadata = tmp_path / "reaching_hdf5/data/metadata.json"
    trace = tmp_path / "ran"
    hostile = {"name": "x", "entry_point": "os:system", "kwargs": {"command": f"touch {trace}"}}
    env_spec = {
        "id": "Reach-v2", "entry_point": "os:system", "kwargs": {"goal": [1, 2], "render_mode": "human"},
        "max_episode_steps": 70, "additional_wrappers": [hostile], "vector_entry_point": "os:system",
    }  # fmt: skip
    metadata.write_text(json.dumps(json.loads(metadata.read_bytes()) | {"env_spec": json.dumps(env_spec)}))
    store = import_data([tmp_path / "reaching_hdf5"], tmp_path / "s.h5", progress=False)
    (name, spec) = next(iter(store.task_specs.items()))
    assert name == "gym:Reach-v2"
    assert spec["make"] == "gymnasium:make"
    assert spec["kwargs"] == {"id": "Reach-v2", "goal": [1, 2]}
    assert spec["episode_length"] == 70
    assert "os:system" not in json.dumps(spec)
    assert not trace.exists()
