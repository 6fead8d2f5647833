"""Data sets that are exported give the store's episodes when they are imported again."""

import numpy as np
import pytest

from datamodules import EpisodeStore, EpisodeWriter
from datamodules.check import check
from datamodules.importing import import_data
from datamodules.store_export import export_store
from lit_pwm.cli.main import run
from lit_pwm.tasks import TaskSpec


@pytest.fixture
def original(tmp_path):
    """Twelve episodes of one task, every other one terminated; imported, so that the store has bounds."""
    generator, path = np.random.default_rng(0), tmp_path / "rows.npz"
    lengths = [3 + number % 4 for number in range(12)]
    count = sum(lengths)
    masks, ends = np.ones(count), np.zeros(count)
    last = np.cumsum(lengths) - 1
    ends[last] = 1
    masks[last[::2] - 1] = 0
    np.savez(
        path,
        observations=generator.normal(size=(count, 3)).astype(np.float32),
        actions=generator.uniform([-2, 0], [2, 0.3], (count, 2)).astype(np.float32),
        rewards=generator.normal(size=count).astype(np.float32),
        terminals=ends,
        masks=masks,
    )
    options = {"task": "gym:Pendulum-v1", "action_bounds": ((-2.0, 0.0), (2.0, 0.3)), "masks": "terminated"}
    return import_data([path], tmp_path / "store.h5", options=options, progress=False)


def exported(store, folder, to, *more, code=0):
    assert run(["data", "export", str(store.path), "--to", to, "--out", str(folder), *more]) == code


def again(folder, out, **options):
    store = import_data([folder], out, options=options, progress=False)
    assert check(out) == []
    return store


def test_minari_gives_the_same_episodes(original, tmp_path, capsys):
    exported(original, tmp_path / "set", "minari")
    assert capsys.readouterr().err == ""
    store = again(tmp_path / "set", tmp_path / "again.h5")
    assert store.tasks == original.tasks
    spec = store.task_specs["gym:Pendulum-v1"]
    assert (spec["make"], spec["kwargs"]) == ("gymnasium:make", {"id": "Pendulum-v1"})
    assert spec["low"] == [-2, 0]
    assert spec["high"] == pytest.approx([2, 0.3])
    for one, other in zip(original, store, strict=True):
        np.testing.assert_array_equal(one.obs, other.obs)
        np.testing.assert_allclose(one.action, other.action, rtol=0, atol=1e-6)
        np.testing.assert_array_equal(one.reward, other.reward)
        assert (one.terminated, other.last_obs_known) == (other.terminated, True)
    assert store.terminated().tolist() == [True, False] * 6


def test_lerobot_loses_the_last_observation_and_says_so(original, tmp_path, capsys):
    exported(original, tmp_path / "set", "lerobot")
    assert "the last observations of 12 episodes are left out" in " ".join(capsys.readouterr().err.split())
    options = {"task": "t", "action_bounds": ((-2.0, 0.0), (2.0, 0.3)), "done": "terminated"}
    store = again(tmp_path / "set", tmp_path / "again.h5", **options)
    assert store.last_obs_known.tolist() == [False, True] * 6
    for one, other in zip(original, store, strict=True):
        kept = len(one) - (not one.terminated)
        assert len(other) == kept
        np.testing.assert_array_equal(one.obs[:-1], other.obs[: len(one)])
        np.testing.assert_allclose(one.action[:kept], other.action, rtol=0, atol=1e-6)
        np.testing.assert_array_equal(one.reward[:kept], other.reward)
        assert one.terminated == other.terminated


def test_large_exports_are_spread_over_files(original, tmp_path, monkeypatch):
    monkeypatch.setattr("datamodules.lerobot_export._FILE_NUMBERS", 60)
    exported(original, tmp_path / "set", "lerobot")
    assert len(list((tmp_path / "set/data/chunk-000").iterdir())) > 2
    store = again(tmp_path / "set", tmp_path / "again.h5", task="t", action_bounds=((-2.0, 0.0), (2.0, 0.3)))
    np.testing.assert_array_equal([e.obs[0] for e in store], [e.obs[0] for e in original])


def test_last_observations_that_were_not_recorded_are_said(original, tmp_path, capsys):
    exported(original, tmp_path / "set", "lerobot")
    options = {"task": "t", "action_bounds": ((-2.0, 0.0), (2.0, 0.3)), "done": "terminated"}
    store = again(tmp_path / "set", tmp_path / "again.h5", **options)
    capsys.readouterr()
    exported(store, tmp_path / "other", "minari")
    assert "last observations of 6 episodes were not recorded" in " ".join(capsys.readouterr().err.split())


def test_one_task_of_several_and_actions_without_bounds_as_they_are(tmp_path, capsys):
    tasks, numbers = {"a": (3, 1), "b": (2, 2)}, np.random.default_rng(0)
    with EpisodeWriter(tmp_path / "s.h5", tasks=tasks) as writer:
        for task, (obs_dim, action_dim) in list(tasks.items()) * 2:
            arrays = numbers.normal(size=(5, obs_dim)), numbers.uniform(-1, 1, (4, action_dim)), numbers.normal(size=4)
            writer.append(task=task, obs=arrays[0], action=arrays[1], reward=arrays[2])
    store = EpisodeStore(tmp_path / "s.h5")
    exported(store, tmp_path / "set", "minari", code=2)
    assert "has 2 tasks" in " ".join(capsys.readouterr().err.split())
    exported(store, tmp_path / "set", "minari", "--task", "c", code=2)
    assert "no episodes of 'c'" in " ".join(capsys.readouterr().err.split())
    exported(store, tmp_path / "set", "minari", "--task", "b")
    found = again(tmp_path / "set", tmp_path / "again.h5", task="b")
    assert len(found) == 2
    for one, other in zip((store[1], store[3]), found, strict=True):
        np.testing.assert_array_equal(one.action, other.action)
        np.testing.assert_array_equal(one.obs, other.obs)
    exported(store, tmp_path / "set", "minari", "--task", "b", code=2)
    assert "exists already" in " ".join(capsys.readouterr().err.split())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again.h5", "again.json", "s.h5", "s.json", "set"]


def test_minari_keeps_the_arguments_and_the_time_limit_of_an_environment(tmp_path):
    spec = TaskSpec(
        "gym:Pendulum-v1", make="gymnasium:make", kwargs={"id": "Pendulum-v1", "g": 9.0}, obs_dim=3, action_dim=1,
        episode_length=50, low=(-2.0,), high=(2.0,),
    )  # fmt: skip
    with EpisodeWriter(tmp_path / "p.h5", {spec.name: (3, 1)}, action_repeat=1, specs=[spec]) as writer:
        writer.append(task=spec.name, obs=np.ones((4, 3)), action=np.zeros((3, 1)), reward=np.ones(3))
    export_store(tmp_path / "p.h5", tmp_path / "set", "minari")
    made = again(tmp_path / "set", tmp_path / "again.h5").task_specs
    ours = EpisodeStore(tmp_path / "p.h5").task_specs
    assert made[spec.name] == {key: value for key, value in ours[spec.name].items() if key != "versions"}
