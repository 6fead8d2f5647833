"""Collecting real episodes: the same for any number of workers, and going on after a kill."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from support import start_of

from datamodules import EpisodeStore, collect
from datamodules.check import check
from datamodules.shards import scan
from lit_pwm.errors import LitPWMError
from lit_pwm.tasks import make_env, registry

TASKS = ["short-swingup", "short-reacher"]
LENGTH = 120
REGISTER = f"""
from dataclasses import replace
from lit_pwm.tasks import register, task_spec

for name, short in ("cartpole-swingup", "short-swingup"), ("reacher-easy", "short-reacher"):
    register(replace(task_spec(name), name=short, episode_length={LENGTH}))
"""


@pytest.fixture(scope="module", autouse=True)
def short_tasks():
    """Two real tasks with short episodes; worker processes do not have them in their registries."""
    exec(REGISTER)
    yield
    for name in TASKS:
        del registry._SPECS[name]


def quick(path, episodes=3, **options):
    return collect(TASKS, episodes, path, **({"workers": 1, "progress": False} | options))


@pytest.fixture(scope="module")
def collected(tmp_path_factory):
    path = tmp_path_factory.mktemp("collected") / "store.h5"
    quick(path, episodes=12, seed=4)
    return path


def test_the_store_is_complete_and_sound(collected):
    store = EpisodeStore(collected)
    assert check(collected) == []
    assert store.tasks == {"short-swingup": (5, 1), "short-reacher": (6, 2)}
    assert [e.task for e in store] == ["short-swingup"] * 12 + ["short-reacher"] * 12
    assert {len(e) for e in store} == {LENGTH}
    assert {e.source for e in store} == {"noise"}
    assert not any(e.terminated for e in store)
    assert len({e.obs[0].tobytes() for e in store}) == 24
    assert sorted(os.listdir(collected.parent)) == ["store.h5", "store.json"]


def test_actions_and_rewards_are_those_of_the_environment(collected):
    """Replaying the actions from the same start gives the stored observations and rewards."""
    for number in (3, 15):
        episode = EpisodeStore(collected)[number]
        env = make_env(episode.task)
        seed = start_of(4, episode.task, number % 12)
        obs, _ = env.reset(seed=seed)
        for t, action in enumerate(episode.action):
            np.testing.assert_array_equal(obs, episode.obs[t])
            obs, reward, *_ = env.step(action)
            assert np.float32(reward) == episode.reward[t]
        np.testing.assert_array_equal(obs, episode.obs[-1])


def test_an_episode_depends_on_seed_task_and_number_alone(collected, tmp_path):
    store = EpisodeStore(collected)
    alone = collect(["short-reacher"], 2, tmp_path / "alone.h5", workers=1, seed=4, progress=False)
    for i in range(2):
        np.testing.assert_array_equal(alone[i].obs, store[12 + i].obs)
        np.testing.assert_array_equal(alone[i].action, store[12 + i].action)
    other = collect(["short-reacher"], 1, tmp_path / "other.h5", workers=1, seed=5, progress=False)
    assert not np.array_equal(other[0].obs, store[12].obs)


def test_the_store_does_not_depend_on_the_number_of_workers(collected, tmp_path):
    quick(tmp_path / "two.h5", episodes=12, seed=4, workers=2)
    assert (tmp_path / "two.h5").read_bytes() == collected.read_bytes()


SCRIPT = f"""
{REGISTER}
import sys
from datamodules import collect

if __name__ == "__main__":
    collect(["short-swingup", "short-reacher"], 12, sys.argv[1], workers=int(sys.argv[2]), seed=4, progress=False)
"""


@pytest.mark.parametrize("workers", [1, 2])
def test_a_killed_collection_goes_on(collected, tmp_path, workers):
    script, path = tmp_path / "script.py", tmp_path / "store.h5"
    script.write_text(SCRIPT)
    shards = tmp_path / "store.h5.shards"
    with subprocess.Popen([sys.executable, str(script), str(path), str(workers)]) as process:
        while not any(file.stat().st_size for file in shards.glob("*.shard")):
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    assert not path.exists()
    sizes = None
    while sizes != (sizes := [file.stat().st_size for file in sorted(shards.glob("*.shard"))]):
        time.sleep(0.5)  # orphaned workers end by themselves
    there = sum(len(scan(file)) for file in shards.glob("*.shard"))
    assert 0 < there < 24
    quick(path, episodes=12, seed=4)
    assert path.read_bytes() == collected.read_bytes()
    assert sorted(os.listdir(tmp_path)) == ["script.py", "store.h5", "store.json"]


def test_going_on_rolls_only_what_is_missing(tmp_path, monkeypatch):
    path = tmp_path / "store.h5"
    from datamodules import collecting

    rolled, roll = [], collecting.Collector._roll

    def counting(self, spec, task, block, numbers):
        if len(rolled) == 3:
            raise InterruptedError
        rolled.append((spec.name, numbers))
        return roll(self, spec, task, block, numbers)

    monkeypatch.setattr(collecting.Collector, "_roll", counting)
    with pytest.raises(InterruptedError):
        quick(path, episodes=2)
    assert not path.exists()
    rolled.clear()
    quick(path, episodes=2)
    assert rolled == [("short-reacher", [1])]
    assert len(EpisodeStore(path)) == 4


def test_other_settings_are_not_mixed_in(tmp_path, monkeypatch):
    path = tmp_path / "store.h5"
    from datamodules import collecting

    monkeypatch.setattr(collecting, "finish", lambda *arguments: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        quick(path, episodes=1)
    monkeypatch.undo()
    with pytest.raises(LitPWMError, match="seed was 0 and is now 1"):
        quick(path, episodes=1, seed=1)
    with pytest.raises(LitPWMError, match="behaviour was 'noise' and is now 'random'"):
        quick(path, episodes=1, behaviour="random")
    with pytest.raises(LitPWMError, match=r"tasks was .*short-reacher.* is now .*short-reacher.*short-swingup"):
        collect(TASKS[::-1], 1, path, workers=1, progress=False)
    assert len(quick(path, episodes=2)) == 4  # more episodes of the same kind are no other setting


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"tasks": ["cartpole-swing-up"]}, "'cartpole-swingup'"),
        ({"tasks": ["mw-reach"]}, "Meta-World"),
        ({"tasks": ["cup-catch", "cup-catch"]}, "twice"),
        ({"tasks": []}, "at least one name"),
        ({"tasks": "cup-catch"}, "list"),
        ({"episodes": 0}, "episodes"),
        ({"workers": 0}, "workers"),
        ({"seed": -1}, "seed"),
        ({"behaviour": "nois"}, "Did you mean 'noise'"),
    ],
)
def test_refusals_leave_nothing(tmp_path, change, says):
    arguments = {"tasks": TASKS, "episodes": 1, "out": tmp_path / "s.h5", "progress": False}
    with pytest.raises(LitPWMError, match=says):
        collect(**arguments | change)
    assert os.listdir(tmp_path) == []


def test_an_existing_store_is_kept(collected):
    before = collected.read_bytes()
    with pytest.raises(LitPWMError, match="exists already"):
        quick(collected)
    assert collected.read_bytes() == before


@pytest.fixture(scope="module")
def policy_file(tmp_path_factory):
    """A checkpoint of a policy for two tasks, with fresh weights."""
    from functools import partial

    import torch

    from lit_pwm.checkpoints import DESCRIPTION_KEY, describe_policy
    from lit_pwm.models import CriticEnsemble, MLPActor, MLPDynamics, WorldModel

    torch.manual_seed(0)
    tasks = {"short-swingup": (5, 1), "short-reacher": (6, 2)}
    widths = {"latent_dim": 16, "encoder_dim": 16, "reward_dim": 16, "task_dim": 4}
    model = WorldModel(tasks, partial(MLPDynamics, hidden_dim=16), **widths)
    actor, critic = MLPActor(16, 2, 2, hidden_dims=(12,)), CriticEnsemble(16, 2, hidden_dims=(12,))
    actor.set_action_mask(model.action_mask())
    modules = {"world_model": model, "averaged_actor": actor, "critic": critic}
    state = {f"{name}.{key}": value for name, module in modules.items() for key, value in module.state_dict().items()}
    description = describe_policy(model, actor, critic, list(tasks))
    path = tmp_path_factory.mktemp("policy") / "last.ckpt"
    torch.save({"state_dict": state, DESCRIPTION_KEY: description}, path)
    return path


def test_collecting_with_a_policy(policy_file, tmp_path):
    """The policy with noise acts, in the same way for any number of workers and after an interruption."""
    import torch

    from lit_pwm.checkpoints import load_policy

    torch.set_num_threads(2)
    try:
        store = collect(["short-reacher"], 11, tmp_path / "one.h5", str(policy_file), workers=1, progress=False)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)
    collect(["short-reacher"], 11, tmp_path / "two.h5", str(policy_file), workers=2, progress=False)
    assert (tmp_path / "two.h5").read_bytes() == (tmp_path / "one.h5").read_bytes()
    assert check(tmp_path / "one.h5") == []
    assert {e.source for e in store} == {store[0].source}
    assert store[0].source.startswith("policy last.ckpt ")
    policy, scales = load_policy(policy_file), []
    for episode in store:
        wanted = policy.act(episode.obs[:-1], episode.task)
        scales.append(float(np.median(np.abs(episode.action - wanted))))
    assert max(scales) > 0.15
    assert min(scales) < 0.1
    assert not any(np.array_equal(store[i].action, store[i + 1].action) for i in range(10))


def test_policy_episodes_are_the_same_after_an_interruption(policy_file, tmp_path, monkeypatch):
    from datamodules import rolling

    arguments = {"tasks": ["short-reacher"], "behaviour": str(policy_file)}
    collect(**arguments, episodes=4, out=tmp_path / "whole.h5", workers=1, progress=False)
    append, appended = rolling.Shard.append, []

    def breaking(self, *arguments):
        if len(appended) == 2:
            raise InterruptedError
        appended.append(append(self, *arguments))

    monkeypatch.setattr(rolling.Shard, "append", breaking)
    with pytest.raises(InterruptedError):
        collect(**arguments, episodes=4, out=tmp_path / "broken.h5", workers=1, progress=False)
    monkeypatch.undo()
    collect(**arguments, episodes=4, out=tmp_path / "broken.h5", workers=1, progress=False)
    assert (tmp_path / "broken.h5").read_bytes() == (tmp_path / "whole.h5").read_bytes()


@pytest.mark.parametrize("workers", [1, 2])
def test_a_policy_that_does_not_know_the_task_leaves_nothing(policy_file, tmp_path, workers):
    with pytest.raises(LitPWMError, match="does not know the task 'cup-catch'"):
        collect(["cup-catch"], 11, tmp_path / "s.h5", str(policy_file), workers=workers, progress=False)
    assert os.listdir(tmp_path) == []


def test_a_task_that_a_policy_was_not_trained_for_is_said(policy_file, tmp_path, caplog):
    import torch

    from lit_pwm.checkpoints import DESCRIPTION_KEY

    content = torch.load(policy_file, weights_only=True)
    content[DESCRIPTION_KEY]["trained_tasks"] = ["short-swingup"]
    torch.save(content, tmp_path / "policy.ckpt")
    collect(TASKS, 1, tmp_path / "s.h5", str(tmp_path / "policy.ckpt"), workers=1, progress=False)
    said = [record.getMessage() for record in caplog.records if record.name == "datamodules.collecting"]
    assert said == ["The policy was trained for short-swingup, and not for short-reacher."]


LOUD = """
from dm_control.rl import control
from dm_control.suite import cartpole
from dm_control.utils import containers

SUITE = containers.TaggedTasks()


class Loud(cartpole.Balance):
    def get_reward(self, physics):
        return 1e5 * super().get_reward(physics)


@SUITE.add("mine")
def balance(random=None):
    physics = cartpole.Physics.from_xml_string(*cartpole.get_model_and_assets())
    return control.Environment(physics, Loud(swing_up=False, sparse=False, random=random), time_limit=10)
"""


def test_rewards_beyond_the_bins_are_refused_or_clamped_where_that_is_asked_for(tmp_path, monkeypatch):
    from datamodules.values import REWARD_LIMIT
    from lit_pwm.tasks import TaskSpec, register

    (tmp_path / "loud_suite").mkdir()
    (tmp_path / "loud_suite" / "__init__.py").touch()
    (tmp_path / "loud_suite" / "loud.py").write_text(LOUD)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(registry, "_SPECS", dict(registry._SPECS))
    register(TaskSpec("loud", "loud", "balance", 5, 1, episode_length=20, suite="loud_suite"))
    options = {"out": tmp_path / "s.h5", "workers": 1, "progress": False}
    with pytest.raises(LitPWMError, match=r"reward of episode 0 \('loud'\) is beyond ±22,025.5.*--clamp-rewards"):
        collect(["loud"], 2, **options)
    store = collect(["loud"], 2, **options, clamp_rewards=True)
    assert store.clamped_rewards > 0
    assert max(float(episode.reward.max()) for episode in store) == REWARD_LIMIT
