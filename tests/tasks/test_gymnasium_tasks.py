"""Environments of gymnasium as tasks: their names, what is read from them, what is refused, other processes."""

import multiprocessing
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace

import gymnasium
import numpy as np
import point_mass
import pytest

from lit_pwm.errors import LitPWMError
from lit_pwm.runtime.imports import importing
from lit_pwm.tasks import TaskSpec, make_env, register, task_spec
from lit_pwm.tasks import registry as registry_module
from lit_pwm.tasks.environment import InvalidActionError, ResetNeededError
from lit_pwm.tasks.handing_over import hand_over
from lit_pwm.tasks.vector import close_vector_env, make_vector_env

OWN = TaskSpec("point-mass", make="point_mass:make", kwargs={"field": 3.0}, score_range=(0.0, 40.0))


@pytest.fixture
def registry(monkeypatch):
    monkeypatch.setattr(registry_module, "_SPECS", dict(registry_module._SPECS))


@pytest.mark.parametrize(
    ("env_id", "obs_dim", "bound", "width", "length"),
    [
        ("Hopper-v5", 11, 1, 3, 1000),
        ("Reacher-v5", 10, 1, 2, 50),
        ("Pusher-v5", 23, 2, 7, 100),
        ("HumanoidStandup-v5", 348, np.float32(0.4), 17, 1000),
        ("InvertedPendulum-v5", 4, 3, 1, 1000),
        ("Pendulum-v1", 3, 2, 1, 200),
    ],
)
def test_what_is_read_from_an_environment(env_id, obs_dim, bound, width, length):
    spec = task_spec(f"gym:{env_id}")
    assert (spec.name, spec.make, spec.kwargs) == (f"gym:{env_id}", "gymnasium:make", {"id": env_id})
    assert (spec.obs_dim, spec.action_dim, spec.episode_length, spec.action_repeat) == (obs_dim, width, length, 1)
    assert spec.high == (float(bound),) * width
    assert spec.low == (-float(bound),) * width
    assert spec.score_range is None
    assert spec.normalised(3.0) is None
    assert task_spec(f"gym:{env_id}") is spec  # built once


def test_what_is_read_from_an_own_environment(registry):
    register(OWN)
    spec = task_spec("point-mass")
    assert spec.obs_keys == (("velocity", 2), ("position", 2), ("quarter", 4))
    assert (spec.obs_dim, spec.action_dim, spec.low, spec.high) == (8, 2, (-2, 0), (2, 6))
    assert (spec.episode_length, spec.action_repeat, spec.normalised(10)) == (40, 1, 0.25)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gym:Hopper", r"'gym:Hopper' names an environment of gymnasium without its version.*write gym:Hopper-v5"),
        ("gym:PointMass", "write gym:PointMass-v3"),
        ("gym:point_mass:PointMass", "write gym:point_mass:PointMass-v3"),
        ("gym:Hoper-v5", "'gym:Hoper-v5' names no environment.*Did you mean 'Hopper-v5'"),
        ("gym:Hopper-v77", "Did you mean 'Hopper-v5'"),
        ("gym:", "names no environment"),
        ("gym:what is this?", "names no environment"),
        ("gym:CartPole-v1", r"action_space of 'gym:CartPole-v1' is Discrete\(2\).*Box of floats"),
        ("gym:os:X-v0", "asks for the module 'os', which is not imported"),
        ("gym:a.module.unknown:X-v0", "asks for the module 'a.module.unknown', which is not imported"),
        ("gym:Hopper-v2", r"'gym:Hopper-v2' could not be made.*gymnasium-robotics"),
    ],
)
def test_names_that_are_refused(name, message):
    with pytest.raises(LitPWMError, match=message):
        task_spec(name)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"make": "point_mass:PointMass"}, r"no time limit.*episode_length"),
        ({"make": "point_mass:make", "episode_length": 41}, "episode_length=41.*after 40 steps"),
        ({"make": "point_mass:make", "episode_length": 21, "action_repeat": 2}, "after 20 steps, each 2 of its own"),
        ({"make": "point_mass:make", "obs_dim": 7}, "obs_dim=7, but its environment has 8"),
        ({"make": "point_mass:make", "action_dim": 3}, "action_dim=3, but its environment has 2"),
        ({"make": "point_mass:make", "high": (2.0, 5.0)}, r"high=\(2.0, 5.0\), but its environment has \(2.0, 6.0\)"),
        ({"make": "point_mass:make", "kwargs": {"size": 1}}, "could not be made.*'size'.*kwargs"),
        ({"make": "point_mass:no_environment"}, "returned a str.*returns a gymnasium.Env"),
        ({"make": "point_mass:mak"}, "no 'mak' in point_mass. Did you mean 'make'"),
        ({"make": "point_mass:np.pi"}, "is a float and no function"),
        ({"make": "point_mass:with_pixels"}, r"observation_space of 'mine' at 'camera' holds pixels, \[8, 8, 3\]"),
        (
            {"make": "point_mass:with_actions", "kwargs": {"low": ["-inf", 0], "high": [1, 1]}},
            r"action_space of 'mine' is.*entries \[0\] have no bounds",
        ),
        (
            {"make": "point_mass:with_actions", "kwargs": {"low": [-3.4028235e38, 0], "high": [3.4028235e38, 1]}},
            r"entries \[0\] have no bounds",
        ),
        ({"make": "point_mass:with_actions", "kwargs": {"low": [0, 1], "high": [1, 1]}}, "each have a range"),
        (
            {"make": "point_mass:with_actions", "kwargs": {"low": [0], "high": [9], "dtype": "int32"}},
            "Box of floats with finite bounds",
        ),
    ],
)
def test_environments_that_are_refused(fields, message):
    with pytest.raises(LitPWMError, match=message):
        make_env(TaskSpec("mine", **fields))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"make": "point_mass"}, "make='point_mass'.*package.module:function"),
        ({"make": "point_mass:make", "suite": "mine"}, "names both a function.*and a task"),
        ({"make": "point_mass:make", "kwargs": {"field": np.ones(2)}}, "kwargs=.*JSON"),
        ({"make": "point_mass:make", "kwargs": {"field": (1, 2)}}, "kwargs=.*JSON"),
        ({"make": "point_mass:make", "action_repeat": -1}, "action_repeat=-1.*whole number"),
        ({"make": "point_mass:make", "score_range": (3.0, 1.0)}, "score_range"),
        ({}, "says too little"),
        ({"domain": "swimmer", "task": "swimmer6"}, "says too little"),
    ],
)
def test_specs_that_are_refused(fields, message):
    with pytest.raises(LitPWMError, match=message):
        TaskSpec("mine", **fields)


def test_actions_are_mapped_to_the_environments_bounds():
    env = make_env(OWN)
    env.reset()
    for action, force in (([-1, -1], [-2, 0]), ([0, 0], [0, 3]), ([0.5, 1], [1, 6]), ([-7, 7], [-2, 6])):
        env.step(action)
        np.testing.assert_array_equal(env.env.unwrapped.force, force)
    for bad in ([0.0], [[0.0, 0.0]], [np.nan, 0.0]):
        with pytest.raises(InvalidActionError, match=r"'point-mass'.*of shape \[2\]"):
            env.step(bad)


def test_bounds_of_one_leave_actions_as_they_are():
    env, bare = make_env("gym:Hopper-v5"), gymnasium.make("Hopper-v5")
    env.reset(seed=1), bare.reset(seed=1)
    for action in np.random.default_rng(0).uniform(-1, 1, (20, 3)).astype(np.float32):
        np.testing.assert_array_equal(env.step(action)[0], bare.step(action)[0].astype(np.float32))


def test_observations_are_flattened_in_the_spaces_own_order():
    env, bare = make_env(OWN, seed=4), point_mass.make(field=3.0)
    first = bare.reset(seed=4)[0]
    expected = [*first["velocity"], *first["position"][0], *np.eye(4)[first["quarter"]]]
    np.testing.assert_array_equal(env.reset()[0], np.array(expected, np.float32))


def test_a_termination_is_no_truncation_even_at_the_time_limit():
    env = make_env(OWN, seed=1)
    env.reset()
    ends = [env.step([0, 0])[2:4] for _ in range(40)]
    assert ends == [(False, False)] * 39 + [(False, True)]
    env.reset(seed=1)
    steps = 1
    while not (end := env.step([1, 0])[2:4])[0]:
        steps += 1
    assert end == (True, False)
    assert steps < 40
    with pytest.raises(ResetNeededError):
        env.step([0, 0])
    for length, last in ((steps, (True, False)), (steps - 1, (False, True))):
        short = make_env(replace(OWN, episode_length=length), seed=1)
        short.reset()
        assert [short.step([1, 0])[2:4] for _ in range(length)] == [(False, False)] * (length - 1) + [last]


def test_rewards_of_held_actions_are_summed_up_to_an_end():
    held, bare = make_env(replace(OWN, action_repeat=3), seed=1), make_env(OWN, seed=1)
    assert held.task_spec.episode_length == 14  # 40 steps, of which the last agent step has one
    held.reset(), bare.reset()
    total, rewards, ended = [], [], False
    while not ended:
        _, reward, ended, *_ = held.step([1, 0])
        total.append(reward)
    ended = False
    while not ended:
        _, reward, ended, *_ = bare.step([1, 0])
        rewards.append(reward)
    assert total == [sum(rewards[i : i + 3]) for i in range(0, len(rewards), 3)]


def test_observations_that_are_no_numbers_are_a_divergence():
    env = make_env(TaskSpec("no-numbers", make="point_mass:NoNumbers", episode_length=10), seed=1)
    env.reset()
    given = [env.step([0, 0]) for _ in range(2)][-1][0]
    before = given.copy()
    given[:] = 9  # whoever is given an observation may write into it
    obs, reward, terminated, truncated, info = env.step([0, 0])
    np.testing.assert_array_equal(obs, before)
    assert (reward, terminated, truncated) == (0, False, True)
    assert info == {"diverged": "entries [1] of the observation are not finite"}
    assert "diverged" not in env.reset()[1]


@pytest.mark.parametrize(("low", "high", "action"), [(-1.91, 1.25, 1), (-0.51, 4.62, -1)])
def test_no_action_is_rounded_beyond_its_bounds(low, high, action):
    """In double precision `low + half + half` is above 1.25, and `low + half - half` below -0.51."""
    kwargs = {"low": [low, low], "high": [high, high], "dtype": "float64"}
    env = make_env(TaskSpec("rounded", make="point_mass:with_actions", kwargs=kwargs))
    env.env.unwrapped.action_space = env.env.action_space  # of which it refuses what is not in it
    env.reset()
    env.step([action, action])
    np.testing.assert_array_equal(env.env.unwrapped.force, high if action > 0 else low)


def test_the_seed_is_that_of_the_first_reset():
    env, bare = make_env("gym:Reacher-v5", seed=3), gymnasium.make("Reacher-v5")
    for seed in (3, None, None):
        np.testing.assert_array_equal(env.reset()[0], bare.reset(seed=seed)[0].astype(np.float32))


def test_the_name_may_be_registered_for_an_id_with_other_fields(registry):
    register(TaskSpec("gym:PointMass-v0", make="gymnasium:make", kwargs={"id": "PointMass-v0"}, episode_length=7))
    assert task_spec("gym:PointMass-v0").episode_length == 7


# -- imports and other processes -------------------------------------------------------------------------------------
@pytest.fixture
def unknown_module(tmp_path, monkeypatch):
    """A module that nobody has imported, which says when it is."""
    name = "environments_of_somebody"
    text = "import gymnasium, point_mass\nprint('imported')\nmake = point_mass.make\n"
    (tmp_path / f"{name}.py").write_text(f"{text}gymnasium.register('Somebody-v0', make, max_episode_steps=9)\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("lit_pwm.tasks.allowed_imports._allowed", set())
    yield name
    sys.modules.pop(name, None)
    gymnasium.registry.pop("Somebody-v0", None)


@pytest.mark.parametrize("where", ["id", "kwargs", "make"])
def test_a_module_is_imported_only_if_it_is_named_or_registered(unknown_module, where, registry, capsys):
    task = {
        "id": f"gym:{unknown_module}:Somebody-v0",
        "kwargs": TaskSpec("mine", make="gymnasium:make", kwargs={"id": f"{unknown_module}:Somebody-v0"}),
        "make": TaskSpec("mine", make=f"{unknown_module}:make"),
    }[where]
    with pytest.raises(LitPWMError, match=rf"'{unknown_module}', which is not imported.*--import {unknown_module}"):
        make_env(task)
    assert unknown_module not in sys.modules
    assert capsys.readouterr().out == ""
    if where == "make":
        register(task)  # by code, which could have imported it
        assert make_env(task).task_spec.episode_length == 40
    else:
        with importing([unknown_module]):
            assert make_env(task).task_spec.episode_length == 9
    assert capsys.readouterr().out == "imported\n"


def _first_observation(task, handover):
    handover.take()
    return make_env(task, seed=6).reset()[0]


@pytest.mark.parametrize("task", ["gym:Reacher-v5", "gym:PointMass-v0", OWN], ids=["stock", "registered here", "spec"])
def test_gymnasium_environments_in_a_spawned_process(task):
    handover = hand_over([task_spec(task) if isinstance(task, str) else task])
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        there = pool.submit(_first_observation, task, handover).result(timeout=60)
    np.testing.assert_array_equal(there, _first_observation(task, handover))


@pytest.mark.parametrize("task", ["gym:Hopper-v5", "gym:PointMass-v0", OWN], ids=["stock", "registered here", "spec"])
def test_vectors_of_gymnasium_environments_are_the_same_in_workers(task):
    found = []
    for mode in ("sync", "async"):
        envs = make_vector_env(task, 2, mode)
        rng = np.random.default_rng(0)
        try:
            rows = [envs.reset(seed=[3, 4])[0]]
            for _ in range(60):  # longer than an episode
                rows += envs.step(rng.uniform(-1, 1, envs.action_space.shape).astype(np.float32))[:4]
        finally:
            close_vector_env(envs)
        found.append(rows)
    for one, other in zip(*found, strict=True):
        np.testing.assert_array_equal(one, other)


def test_mujoco_leaves_no_file_of_its_warnings(tmp_path):
    code = "from lit_pwm.tasks import make_env; make_env('gym:HalfCheetah-v5')"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr, list(tmp_path.iterdir())) == ("", "", [])
