"""Collecting in environments of gymnasium: episodes of any length, ends, tasks of several action repeats in a store."""

from dataclasses import replace

import numpy as np
import pytest
from support import start_of

from datamodules import EpisodeStore, EpisodeWriter, MultitaskDataModule
from datamodules.check import check
from datamodules.collecting import collect
from datamodules.reworking import merge, subset
from lit_pwm.errors import LitPWMError
from lit_pwm.tasks import TaskSpec, make_env, register, task_spec
from lit_pwm.tasks import registry as registry_module

HOPPER, OWN, SHORT = "gym:Hopper-v5", "my point mass", "short-cup"


@pytest.fixture(scope="module", autouse=True)
def known():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry_module, "_SPECS", dict(registry_module._SPECS))
        register(TaskSpec(OWN, make="point_mass:make", kwargs={"field": 0.7}))
        register(replace(task_spec("cup-catch"), name=SHORT, episode_length=20))
        yield


@pytest.fixture(scope="module")
def collected(known, tmp_path_factory):
    path = tmp_path_factory.mktemp("gymnasium") / "store.h5"
    collect([SHORT, HOPPER, OWN], 12, path, workers=1, seed=4, progress=False)
    return path


def test_episodes_are_those_of_the_environments(collected):
    store = EpisodeStore(collected)
    assert check(collected) == []
    assert store.tasks == {SHORT: (8, 2), HOPPER: (11, 3), OWN: (8, 2)}
    ends = {name: [(len(e), e.terminated) for e in store if e.task == name] for name in store.tasks}
    assert ends[SHORT] == [(20, False)] * 12
    assert all(terminated for _, terminated in ends[HOPPER])
    assert len({length for length, _ in ends[HOPPER]}) > 3
    assert {terminated for _, terminated in ends[OWN]} == {True, False}
    assert all(length == 40 for length, terminated in ends[OWN] if not terminated)
    for number in (13, 25, 30):
        episode = store[number]
        env = make_env(episode.task)
        obs, _ = env.reset(seed=start_of(4, episode.task, number % 12))
        for t, action in enumerate(episode.action):
            np.testing.assert_array_equal(obs, episode.obs[t])
            obs, reward, terminated, truncated, _ = env.step(action)
            assert np.float32(reward) == episode.reward[t]
            assert (terminated or truncated) == (t + 1 == len(episode.action))
        np.testing.assert_array_equal(obs, episode.obs[-1])
        assert terminated == episode.terminated


def test_workers_that_know_none_of_the_tasks_collect_the_same(collected, tmp_path):
    collect([SHORT, HOPPER, OWN], 12, tmp_path / "store.h5", workers=2, seed=4, progress=False)
    assert (tmp_path / "store.h5").read_bytes() == collected.read_bytes()


def test_each_task_of_a_store_has_its_own_action_repeat(collected, tmp_path):
    store = EpisodeStore(collected)
    assert [store.action_repeat_of(name) for name in store.tasks] == [2, 1, 1]
    subset(collected, tmp_path / "one.h5", tasks=[HOPPER], progress=False)
    subset(collected, tmp_path / "other.h5", tasks=[SHORT], progress=False)
    merge([tmp_path / "one.h5", tmp_path / "other.h5"], tmp_path / "both.h5", progress=False)
    for path in (tmp_path / "one.h5", tmp_path / "other.h5", tmp_path / "both.h5"):
        found = EpisodeStore(path)
        assert {name: found.action_repeat_of(name) for name in found.tasks} == {
            name: repeat for name, repeat in ((HOPPER, 1), (SHORT, 2)) if name in found.tasks
        }
    data = MultitaskDataModule(store=str(collected), tasks=[SHORT, OWN], horizon=4, batch_size=8)
    data.setup("fit")
    assert set(data.tasks) == {SHORT, OWN}


def test_a_task_of_two_action_repeats_is_refused(collected, tmp_path):
    with EpisodeWriter(tmp_path / "four.h5", tasks={SHORT: (8, 2)}, action_repeat=4) as writer:
        writer.append(task=SHORT, obs=np.ones((21, 8)), action=np.ones((20, 2)), reward=np.ones(20))
    with pytest.raises(LitPWMError, match=rf"task '{SHORT}'.*different action repeats, \[2, 4\]"):
        merge([collected, tmp_path / "four.h5"], tmp_path / "both.h5", progress=False)
