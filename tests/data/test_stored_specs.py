"""Stores keep how their tasks' environments are made, through all that is made of them."""

import argparse
from dataclasses import replace

import numpy as np
import pytest

from datamodules import EpisodeStore, EpisodeWriter, MultitaskDataModule, collect
from datamodules.check import check
from datamodules.reworking import merge, split, subset
from lit_pwm.cli.data import run_info
from lit_pwm.errors import LitPWMError
from lit_pwm.provenance import versions
from lit_pwm.tasks import TaskSpec, stored_specs, task_spec
from lit_pwm.tasks.file_specs import make_known

TASKS = {"cup-catch": (8, 2), "mine": (3, 1)}
CUP = {
    "suite": "dm_control.suite", "domain": "ball_in_cup", "task": "catch", "action_repeat": 2, "episode_length": 500,
}  # fmt: skip


def write(path, tasks=TASKS, **options):
    with EpisodeWriter(path, tasks, **options) as writer:
        for name, (obs_dim, action_dim) in tasks.items():
            writer.append(
                task=name, obs=np.ones((4, obs_dim)), action=np.zeros((3, action_dim)), reward=np.ones(3), source="x"
            )
    return EpisodeStore(path)


def test_a_writer_keeps_the_specs_of_registered_tasks(tmp_path):
    store = write(tmp_path / "a.h5")
    spec = store.task_specs["cup-catch"]
    assert CUP.items() <= spec.items()
    assert spec["versions"] == {name: versions()[name] for name in ("mujoco", "dm_control", "gymnasium")}
    assert spec["obs_order"] == ["position", "velocity"]
    assert store.task_specs["mine"] == {}
    assert check(store.path) == []
    assert store.last_obs_known.all()
    write(tmp_path / "b.h5")
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()


def test_a_task_of_other_widths_or_action_repeat_is_not_the_registered_one(tmp_path):
    assert write(tmp_path / "a.h5", {"cup-catch": (7, 2)}).task_specs == {"cup-catch": {}}
    assert write(tmp_path / "b.h5", action_repeat=1).task_specs["cup-catch"] == {}
    assert write(tmp_path / "b2.h5", action_repeat=1).version == 2


def test_specs_that_are_given_must_be_those_of_the_tasks(tmp_path):
    slow = replace(task_spec("cup-catch"), name="mine", episode_length=7)
    assert write(tmp_path / "a.h5", {"mine": (8, 2)}, specs=[slow]).task_specs["mine"]["episode_length"] == 7
    for spec, said in (
        (slow, "'mine' has 8 observation and 2 action entries and action repeat 2, and the store 3, 1 and 2"),
        (replace(slow, name="mime"), "a spec of 'mime'.*Did you mean 'mine'"),
    ):
        with pytest.raises(LitPWMError, match=said):
            write(tmp_path / "b.h5", specs=[spec])


def test_collected_stores_have_them_and_what_is_made_of_them_too(tmp_path):
    tasks = ["cup-catch", "cartpole-swingup"]
    store = collect(tasks, 2, tmp_path / "c.h5", workers=1, progress=False)
    assert store.task_specs == {name: store.task_specs[name] | {"action_repeat": 2} for name in tasks}
    assert store.task_specs["cartpole-swingup"]["domain"] == "cartpole"
    one, two = split(store.path, [tmp_path / "1.h5", tmp_path / "2.h5"], progress=False)
    made = merge([one.path, two.path], tmp_path / "m.h5", progress=False)
    assert one.task_specs == two.task_specs == made.task_specs == store.task_specs
    some = subset(store.path, tmp_path / "s.h5", tasks=["cup-catch"], progress=False)
    assert some.task_specs == {"cup-catch": store.task_specs["cup-catch"]}


def test_a_merge_with_an_older_store_keeps_what_one_says_and_all_versions(tmp_path, monkeypatch):
    store, says_nothing = write(tmp_path / "a.h5"), write(tmp_path / "b.h5", specs=[])
    assert says_nothing.version == 2
    made = merge([says_nothing.path, store.path], tmp_path / "m.h5", progress=False)
    assert made.task_specs == store.task_specs
    monkeypatch.setattr(stored_specs, "versions", lambda: {**versions(), "mujoco": "2.0"})
    older = write(tmp_path / "old.h5")
    both = merge([older.path, made.path], tmp_path / "n.h5", progress=False).task_specs["cup-catch"]
    assert both["versions"]["mujoco"] == f"2.0, {versions()['mujoco']}"
    assert both["versions"]["dm_control"] == versions()["dm_control"]


def test_stores_whose_environments_differ_are_not_used_together(tmp_path):
    spec = task_spec("cup-catch")
    one = write(tmp_path / "a.h5", {"cup-catch": (8, 2)})
    other = write(tmp_path / "b.h5", {"cup-catch": (8, 2)}, specs=[replace(spec, episode_length=9)])
    said = r"'cup-catch' is \{'episode_length': 500\} in .*a\.h5' and \{'episode_length': 9\} in .*b\.h5'"
    with pytest.raises(LitPWMError, match=said):
        merge([one.path, other.path], tmp_path / "m.h5", progress=False)
    with pytest.raises(LitPWMError, match=said):
        _ = MultitaskDataModule([str(one.path), str(other.path)], horizon=1).task_specs


def test_info_names_the_environment(tmp_path, capsys):
    write(tmp_path / "a.h5")
    run_info(argparse.Namespace(store=str(tmp_path / "a.h5")))
    said = capsys.readouterr().out
    line = "environment: catch of dm_control.suite.ball_in_cup, action repeat 2, at most 500 steps"
    assert line in said
    assert f"mujoco {versions()['mujoco']}" in said
    assert said.count("environment:") == 1


def test_what_a_store_names_is_shown_and_trained_on_and_not_run(tmp_path, capsys):
    trace = tmp_path / "ran"
    spec = TaskSpec(
        "mine", make="os:system", kwargs={"command": f"touch {trace}"}, obs_dim=3, action_dim=1, low=(-1.0,),
        high=(1.0,), episode_length=3, action_repeat=2,
    )  # fmt: skip
    store = write(tmp_path / "a.h5", {"mine": (3, 1)}, specs=[spec])
    run_info(argparse.Namespace(store=str(store.path)))
    assert "environment: os:system(command=" in capsys.readouterr().out
    made = merge([store.path], tmp_path / "m.h5", progress=False)
    data = MultitaskDataModule(str(made.path), horizon=2, batch_size=2, val_fraction=0, val_batches=0)
    data.setup()
    next(iter(data.train_dataloader()))
    with pytest.raises(LitPWMError, match=r"'mine' of the store 'm.h5' is made by os:system.*'os'.*--import os"):
        make_known("mine", data.task_specs["mine"], data.tasks["mine"], "the store 'm.h5'")
    assert not trace.exists()
