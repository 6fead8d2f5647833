"""Environments of others that raise errors, or that give what gymnasium's interface does not know."""

import logging
import re

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict

from lit_pwm.cli.main import run
from lit_pwm.errors import LitPWMError, did_you_mean
from lit_pwm.evaluation.acting import RandomPolicy
from lit_pwm.evaluation.evaluator import evaluate_task
from lit_pwm.evaluation.video import record_video
from lit_pwm.tasks import TaskSpec, make_env, register
from lit_pwm.tasks import registry as registry_module
from lit_pwm.tasks.foreign_code import EnvironmentFailedError
from lit_pwm.tasks.rendering import CannotRenderError


class Faulty(gymnasium.Env):
    """Does at the second step, or at another call, what `FAULTS` says of its name."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 0}  # noqa: RUF012

    def __init__(self, fault: str, render_mode: str | None = None) -> None:
        self.fault, self.render_mode, self.steps = fault, render_mode, 0
        self.observation_space, self.action_space = Box(-9, 9, (3,), np.float32), Box(-1, 1, (2,), np.float32)
        if fault == "no metadata":
            self.metadata = None  # ty: ignore[invalid-assignment]
        if fault == "no space":
            del self.observation_space
        if fault == "missing part":
            self.observation_space = Dict(a=Box(0, 1, (2,)), b=Box(0, 1, (1,)))

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        if self.fault == "old reset":
            return np.zeros(3, np.float32)
        if self.fault == "reset raises":
            raise OSError("the motor is off")
        return {"a": np.zeros(2)} if self.fault == "missing part" else np.zeros(3, np.float32), {}

    def step(self, action):
        self.steps += 1
        values = {"reward": 1.0, "terminated": False, "truncated": self.steps == 4}
        name, _, value = self.fault.partition(" = ")
        if name in values and self.steps == 2:
            values[name] = {"array": np.array([0.5]), "arrays": np.ones(2), "none": None, "text": "False",
                            "nan": np.nan, "one": np.array([1.0])}[value]  # fmt: skip
        if self.fault == "step raises" and self.steps == 2:
            raise ZeroDivisionError("the arm fell")
        obs = np.zeros(3, np.float32)
        if self.fault == "old step":
            return obs, 1.0, False, {}
        return obs, values["reward"], values["terminated"], values["truncated"], {}

    def render(self):
        if self.fault == "render raises" and self.steps == 2:
            raise ConnectionError("the camera is gone")
        return np.zeros((16, 16 + 16 * (self.fault == "frames grow" and self.steps == 2), 3), np.uint8)

    def close(self):
        if self.fault == "close raises":
            raise ValueError("it is closed already")


def make(fault: str, render_mode: str | None = None) -> gymnasium.Env:
    return Faulty(fault, render_mode)


def spec(fault, **fields):
    return TaskSpec("faulty", make=f"{__name__}:make", kwargs={"fault": fault}, episode_length=5, **fields)


def episode(task):
    env = make_env(task)
    env.reset(seed=0)
    rewards = []
    while True:
        _, reward, terminated, truncated, _ = env.step(np.zeros(2))
        rewards.append(reward)
        if terminated or truncated:
            env.close()
            return rewards, terminated


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("reset raises", rf"failed in reset\(\): OSError: the motor is off \({re.escape(__file__)}, line \d+\)"),
        ("step raises", rf"failed in step\(\): ZeroDivisionError: the arm fell \({re.escape(__file__)}, line \d+\)"),
        ("missing part", r"failed in reset\(\): KeyError: 'b'"),
        ("old reset", r"what reset\(\) returned.*a tuple of the observation and a dictionary"),
        ("old step", r"what step\(\) returned.*observation, reward, terminated, truncated and info"),
        ("no space", "has as its observation_space None.*gymnasium.spaces"),
        ("reward = arrays", r"gave array\(\[1., 1.\]\) as reward.*a real number"),
        ("reward = none", "gave None as reward"),
        ("reward = text", "gave 'False' as reward"),
        ("terminated = text", "gave 'False' as terminated.*True or False"),
        ("truncated = none", "gave None as truncated"),
        ("terminated = arrays", r"gave array\(\[1., 1.\]\) as terminated"),
        ("terminated = nan", "as terminated and truncated.*True or False"),
    ],
)
@pytest.mark.parametrize("repeat", [1, 3])
def test_what_an_environment_does_wrong_is_said(fault, message, repeat):
    with pytest.raises(LitPWMError, match=f"The environment of 'faulty' .*{message}"):
        episode(spec(fault, action_repeat=repeat))


@pytest.mark.parametrize(
    ("fault", "rewards", "ended"),
    [
        ("reward = array", [1, 0.5, 1, 1], False),
        ("terminated = one", [1, 1], True),
        ("no metadata", [1, 1, 1, 1], False),
        ("close raises", [1, 1, 1, 1], False),
    ],
)
def test_what_is_no_fault_of_its_steps_stops_nobody(fault, rewards, ended, caplog):
    with caplog.at_level(logging.WARNING):
        assert episode(spec(fault)) == (rewards, ended)
    assert ("failed in close(): ValueError: it is closed already" in caplog.text) == (fault == "close raises")


def test_an_environment_without_metadata_renders_nothing():
    with pytest.raises(CannotRenderError, match=r"render modes are \[\]"):
        make_env(spec("no metadata"), render_mode="rgb_array")


@pytest.mark.parametrize(
    ("fault", "message"),
    [("render raises", r"failed in render\(\): ConnectionError: the camera is gone"), ("frames grow", "its first")],
)
def test_frames_that_go_wrong_amid_an_episode(fault, message, registry, tmp_path):
    register(spec(fault))
    with pytest.raises(LitPWMError, match=message):
        record_video(RandomPolicy(), "faulty", 0, tmp_path / "a.mp4")
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def registry(monkeypatch):
    monkeypatch.setattr(registry_module, "_SPECS", dict(registry_module._SPECS))


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_evaluations_say_it_too(mode, registry):
    register(spec("step raises"))
    with pytest.raises(EnvironmentFailedError, match="the arm fell"):
        evaluate_task(RandomPolicy(), "faulty", 1, 0, mode=mode)


@pytest.mark.parametrize("workers", ["1", "2"])
def test_collecting_says_it_too(workers, registry, refused, tmp_path):
    register(spec("step raises"))
    argv = ["collect", "--tasks", "faulty", "--episodes", "4", "--workers", workers]
    assert "failed in step(): ZeroDivisionError: the arm fell" in refused(*argv, "--out", str(tmp_path / "a.h5"))


@pytest.fixture
def refused(capsys):
    def refused(*argv):
        assert run(list(argv)) == 2
        return " ".join(capsys.readouterr().err.split())

    return refused


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"make": 7}, "make=7.*package.module:function"),
        ({"low": -1}, "low=-1.*a finite number for each entry"),
        ({"high": ("a", "b")}, "high=.*a finite number"),
        ({"high": "12"}, "high='12'.*a finite number"),
        ({"score_range": 5}, "score_range=5"),
        ({"score_range": ("a", "b")}, "score_range="),
        ({"score_range": (0, float("inf"))}, "score_range="),
        ({"kwargs": {"fault": "", "render_mode": "human"}}, "'human'.*without render_mode"),
    ],
)
def test_fields_of_the_wrong_kind(fields, message):
    with pytest.raises(LitPWMError, match=message):
        TaskSpec("mine", **({"make": f"{__name__}:make", "kwargs": {"fault": ""}} | fields))


def test_bounds_may_be_lists_or_arrays():
    one = make_env(spec("", low=np.array([-1.0, -1.0]), high=[1, 1], score_range=[0, 2])).task_spec
    assert (one.low, one.high, one.score_range) == ((-1.0, -1.0), (1.0, 1.0), (0.0, 2.0))


@pytest.mark.parametrize("name", ["", "a,b", "a\nb", " a", 5])
def test_names_that_no_command_could_be_given(name, registry):
    with pytest.raises(LitPWMError, match="printable characters without commas"):
        register(TaskSpec(name, make=f"{__name__}:make", kwargs={"fault": ""}))


def test_capitals_hide_no_name():
    assert did_you_mean("HOPPER-V5", ["Hopper-v5", "Ant-v5"]).startswith("Did you mean 'Hopper-v5'")
