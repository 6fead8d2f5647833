"""Tasks whose simulation diverges now and then: their episodes end or are left out, and all others go on."""

import sys
import zlib

import numpy as np
import pytest

from datamodules import collect
from datamodules.check import check
from lit_pwm.errors import LitPWMError
from lit_pwm.evaluation.evaluator import evaluate_task
from lit_pwm.tasks import TaskSpec, make_env, register, registry

LENGTH = 40
SLIDE = '''
import numpy as np
from dm_control import mujoco
from dm_control.rl import control
from dm_control.suite import base
from dm_control.utils import containers

SUITE = containers.TaggedTasks()
XML = """<mujoco><option timestep="0.02"/><worldbody><body>
<joint name="j" type="slide" axis="1 0 0" stiffness="-4000"/><geom type="sphere" size=".1" mass="1"/></body></worldbody>
<actuator><motor joint="j" ctrllimited="true" ctrlrange="-1 1" gear="0"/></actuator></mujoco>"""


class Slide(base.Task):
    """A ball on a hilltop: where it does not start at rest, its physics blow up, or its reward or position is lost."""

    def __init__(self, how, random):
        super().__init__(random=random)
        self.how, self.bad = how, False

    def initialize_episode(self, physics):
        self.bad = self.random.uniform() < 0.5
        physics.named.data.qpos["j"] = 1.0 if self.bad and self.how == "physics" else 0.0
        if self.bad and self.how == "start":
            physics.named.data.qpos["j"] = np.nan
        super().initialize_episode(physics)

    def lost(self, how, physics):
        return self.bad and self.how == how and physics.time() > 0.5

    def get_observation(self, physics):
        return {"p": physics.position() + (np.inf if self.lost("position", physics) else 0.0), "v": physics.velocity()}

    def get_reward(self, physics):
        return np.nan if self.lost("reward", physics) else 1.0


def add(how):
    def slide(random=None):
        physics = mujoco.Physics.from_xml_string(XML)
        return control.Environment(physics, Slide(how, random), time_limit=10, control_timestep=0.02)

    slide.__name__ = how
    SUITE.add()(slide)


for how in ("physics", "position", "reward", "start"):
    add(how)
'''


@pytest.fixture(params=["physics", "position", "reward", "start"])
def diverging(request, tmp_path, monkeypatch):
    """A task of which about half of the episodes diverge, in one of four ways."""
    package = tmp_path / "suite_of_hilltops"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "hill.py").write_text(SLIDE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(registry, "_SPECS", dict(registry._SPECS))
    register(TaskSpec("slide", "hill", request.param, 2, 1, episode_length=LENGTH, suite=package.name))
    yield request.param
    for name in (package.name, f"{package.name}.hill"):
        sys.modules.pop(name, None)


def outcome(seed):
    """The steps of an episode, its return, and whether it diverged."""
    env = make_env("slide")
    obs, info = env.reset(seed=seed)
    assert np.isfinite(obs).all()
    total, steps, over = 0.0, 0, False
    while not over:
        obs, reward, terminated, over, info = env.step([0.3])
        assert np.isfinite(obs).all()
        assert np.isfinite(reward)
        assert not terminated
        total, steps = total + reward, steps + 1
    with pytest.raises(LitPWMError, match="no episode is running"):
        env.step([0.3])
    return steps, total, "diverged" in info


def test_the_step_that_diverges_ends_the_episode_and_others_are_whole(diverging):
    ended = [outcome(seed) for seed in range(12)]
    bad = [steps for steps, _, diverged in ended if diverged]
    assert 0 < len(bad) < 12
    assert all(steps < LENGTH for steps in bad)
    assert all(steps == 1 for steps in bad) is (diverging == "start")
    assert {steps for steps, _, diverged in ended if not diverged} == {LENGTH}


def test_an_episode_is_the_same_after_one_that_diverged(diverging):
    """A simulation that blew up leaves nothing behind."""
    env = make_env("slide")
    bad, good = (next(s for s in range(12) if outcome(s)[2] is wanted) for wanted in (True, False))
    for seed in (bad, good):
        env.reset(seed=seed)
        rewards = 0
        for _ in range(LENGTH):
            _, reward, _, over, info = env.step([0.3])
            rewards += reward
            if over:
                break
    assert "diverged" not in info
    assert rewards == outcome(good)[1]


def test_a_collection_leaves_them_out_and_says_so(diverging, tmp_path, caplog):
    workers = 2 if diverging == "physics" else 1
    store = collect(["slide"], 12, tmp_path / "s.h5", workers=workers, progress=False)
    assert 0 < len(store) < 12
    assert {len(episode) for episode in store} == {LENGTH}
    assert check(tmp_path / "s.h5") == []
    assert all(np.isfinite(episode.obs).all() for episode in store)
    (said,) = [record.getMessage() for record in caplog.records if record.name == "datamodules.collecting"]
    assert f"{12 - len(store)} of 12 episodes" in said
    assert "'slide'" in said
    assert "environment seed" in said
    assert list(tmp_path.glob("s.h5*")) == [tmp_path / "s.h5"]


def test_an_evaluation_counts_them_with_what_they_earned(diverging, constant_policy, caplog):
    policy = constant_policy([0.3], ["slide"])
    wanted = [outcome(seed) for seed in range(5, 17)]
    result = evaluate_task(policy, "slide", 12, 5)
    assert result.returns == tuple(total for _, total, _ in wanted)
    assert result.diverged == tuple(seed for seed, (_, _, bad) in zip(range(5, 17), wanted, strict=True) if bad)
    assert f"diverged in {len(result.diverged)} of 12 episodes" in caplog.text
    if diverging == "physics":
        assert evaluate_task(policy, "slide", 3, 5, mode="async") == evaluate_task(policy, "slide", 3, 5, mode="sync")


def test_a_collection_of_which_nothing_is_left_is_refused(diverging, tmp_path):
    bad = next(seed for seed in range(50) if outcome(start_of(seed))[2])
    with pytest.raises(LitPWMError, match=r"1 of 1 episodes.*episode 0 of 'slide' .*at step"):
        collect(["slide"], 1, tmp_path / "s.h5", workers=1, seed=bad, progress=False)
    assert not list(tmp_path.glob("s.h5*"))


def start_of(seed):
    """The environment seed of a collection's first episode."""
    return int(np.random.SeedSequence([seed, zlib.crc32(b"slide"), 0]).spawn(2)[0].generate_state(1)[0])
