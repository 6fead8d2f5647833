"""`make_env`: gymnasium's conventions, random streams, rendering, errors."""

import multiprocessing
import os
import subprocess
import sys
import warnings
from concurrent.futures import ProcessPoolExecutor

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from lit_pwm.errors import LitPWMError
from lit_pwm.tasks import TASK_SETS, TaskSpec, make_env, task_spec
from lit_pwm.tasks.environment import InvalidActionError, ResetNeededError
from lit_pwm.tasks.rendering import can_render

ONE_PER_DOMAIN = sorted({task_spec(name).domain: name for name in TASK_SETS["mt30"]}.values())


needs_rendering = pytest.mark.skipif(not can_render(), reason="nothing on this machine can render")


@pytest.mark.parametrize("name", TASK_SETS["mt30"])
def test_gymnasium_checker(name):
    env = make_env(name)
    with warnings.catch_warnings():
        # Joint velocities have no bound.
        warnings.filterwarnings("ignore", message=r".*A Box observation space (min|max)imum value is -?infinity.*")
        check_env(env, skip_render_check=True)


@needs_rendering
@pytest.mark.parametrize("name", ONE_PER_DOMAIN)
def test_rendering(name):
    env = make_env(name, render_mode="rgb_array", width=96, height=64)
    env.reset(seed=0)
    first = env.render()
    assert first.shape == (64, 96, 3)
    assert first.dtype == np.uint8
    assert first.std() > 5  # a picture, not a blank
    kept = first.copy()
    for _ in range(10):
        env.step(np.ones(env.action_space.shape))
    assert (env.render() != kept).any()
    np.testing.assert_array_equal(first, kept)
    env.close()
    env.close()


@needs_rendering
def test_gymnasium_checker_with_frames():
    env = make_env("cartpole-swingup", render_mode="rgb_array")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r".*A Box observation space (min|max)imum value is -?infinity.*")
        check_env(env)


@needs_rendering
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"camera": "from_above"}, r"camera 'from_above'.*\[-1, 0, 1, 'side', 'back'\]"),
        ({"camera": 2}, "camera 2"),
        ({"width": 100_000}, "100000 x 256 pixels"),
        ({"height": 0}, "256 x 0 pixels"),
    ],
)
def test_frames_that_the_model_does_not_give(options, message):
    with pytest.raises(LitPWMError, match=message):
        make_env("walker-walk", render_mode="rgb_array", **options)


@needs_rendering
def test_rendering_does_not_disturb_the_physics():
    seen, blind = make_env("walker-walk", 5, "rgb_array", width=32, height=32), make_env("walker-walk", 5)
    seen.reset(), blind.reset()
    for action in np.random.default_rng(0).uniform(-1, 1, (20, 6)):
        seen.render()
        np.testing.assert_array_equal(seen.step(action)[0], blind.step(action)[0])


def test_without_a_backend_physics_runs_and_frames_are_refused():
    code = (
        "from lit_pwm.tasks import make_env\n"
        "env = make_env('pendulum-swingup'); env.reset(); env.step([0.5])\n"
        "assert env.render() is None\n"
        "make_env('pendulum-swingup', render_mode='rgb_array')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, "MUJOCO_GL": "disabled"}
    )
    assert done.returncode == 1
    assert "CannotRenderError: Frames of 'pendulum-swingup'" in done.stderr


def test_a_backend_that_dm_control_does_not_know():
    code = "from lit_pwm.tasks import make_env; make_env('pendulum-swingup')"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, "MUJOCO_GL": "crayons"}
    )
    assert done.returncode == 1
    assert "LitPWMError" in done.stderr
    assert "MUJOCO_GL" in done.stderr.splitlines()[-1]


def test_building_an_environment_says_nothing():
    code = "from lit_pwm.tasks import make_env; make_env('cheetah-run').reset()"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, "MUJOCO_GL": "disabled"}
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_seed_of_make_env_is_that_of_the_first_reset_only():
    by_argument = make_env("cartpole-swingup", seed=11)
    by_reset = make_env("cartpole-swingup")
    episodes = [by_argument.reset()[0] for _ in range(3)]
    again = [by_reset.reset(seed=11)[0], by_reset.reset()[0], by_reset.reset()[0]]
    np.testing.assert_array_equal(episodes, again)
    assert (episodes[0] != episodes[1]).any()
    assert by_argument.np_random_seed == by_reset.np_random_seed == 11
    overruled = make_env("cartpole-swingup", seed=12)
    np.testing.assert_array_equal([overruled.reset(seed=11)[0], overruled.reset()[0]], episodes[:2])


def test_nothing_of_an_earlier_episode_is_left():
    """Fields of the model are randomised too (targets, sizes): all have to be drawn anew."""
    fresh, used = make_env("finger-turn-hard", seed=4), make_env("finger-turn-hard", seed=99)
    for _ in range(2):
        used.reset()
        for _ in range(30):
            used.step(used.action_space.sample())
    np.testing.assert_array_equal(used.reset(seed=4)[0], fresh.reset()[0])
    for action in np.random.default_rng(0).uniform(-1, 1, (50, 2)):
        for one, other in zip(fresh.step(action), used.step(action), strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("seed", [-1, 2**32, 1.5, "3"])
def test_seeds_that_dm_control_does_not_take(seed):
    with pytest.raises(LitPWMError, match="whole number from 0 to 4294967295"):
        make_env("pendulum-swingup", seed=seed)
    with pytest.raises(LitPWMError, match="whole number from 0 to 4294967295"):
        make_env("pendulum-swingup").reset(seed=seed)


def test_objects_of_dm_control():
    env = gymnasium.wrappers.ClipReward(make_env("cheetah-run-backwards", seed=1), 0, 1)
    env.reset()
    assert env.unwrapped.physics.named.data.xpos["bfoot", "z"] > 0
    assert 0 <= env.unwrapped.task.get_reward(env.unwrapped.physics) <= 1


@pytest.mark.parametrize(
    ("action", "found"),
    [
        ([0.0, 0.0, 0.0], r"shape \[3\]"),
        (0.5, r"shape \[\]"),
        ([[0.0, 0.0]], r"shape \[1, 2\]"),
        ([0.0, np.nan], "nan"),
        ([0.0, np.inf], "inf"),
        (["left", "right"], "left"),
        ([0.0, [1.0]], "list"),
        ([1j, 0], "list"),
    ],
)
def test_bad_actions(action, found):
    env = make_env("reacher-easy")
    env.reset()
    before = env.unwrapped.physics.get_state()
    with pytest.raises(InvalidActionError, match=rf"'reacher-easy'.*{found}.*of shape \[2\]"):
        env.step(action)
    np.testing.assert_array_equal(env.unwrapped.physics.get_state(), before)
    assert issubclass(InvalidActionError, LitPWMError)
    assert issubclass(InvalidActionError, gymnasium.error.InvalidAction)


def test_step_needs_a_running_episode():
    env = make_env("pendulum-swingup")
    with pytest.raises(ResetNeededError, match=r"'pendulum-swingup'.*Call reset\(\) first"):
        env.step([0.0])
    env.reset()
    for _ in range(500):
        env.step([0.0])
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step([0.0])
    env.reset()
    env.step([0.0])
    env.close()
    with pytest.raises(LitPWMError):
        env.step([0.0])


def test_meta_world_is_known_but_cannot_be_run():
    with pytest.raises(LitPWMError, match=r"'mw-door-open' belongs to Meta-World.*not supported yet"):
        make_env("mw-door-open")


def test_wrong_names_and_options():
    with pytest.raises(LitPWMError, match="Did you mean 'cheetah-run-backwards'"):
        make_env("cheetah-run-backward")
    with pytest.raises(LitPWMError, match="render_mode='human'"):
        make_env("cheetah-run", render_mode="human")


def test_a_spec_in_place_of_a_name():
    swimmer = TaskSpec("swimmer-six", "swimmer", "swimmer6", obs_dim=25, action_dim=5)
    obs, _ = make_env(swimmer, seed=2).reset()
    assert obs.shape == (25,)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (TaskSpec("s", "swimmer", "swimmer6", obs_dim=24, action_dim=5), "24 observation and 5 action.*has 25 and 5"),
        (TaskSpec("s", "swimmer", "swimmer6", obs_dim=25, action_dim=6), "25 observation and 6 action.*has 25 and 5"),
        (TaskSpec("s", "swimmer", "swimmer66", obs_dim=25, action_dim=5), "Did you mean 'swimmer6'"),
        (TaskSpec("s", "swimming", "swimmer6", obs_dim=25, action_dim=5), r"'dm_control.suite.swimming'"),
        (TaskSpec("s", "lqr", "lqr_2_1", obs_dim=4, action_dim=1), "without a control range"),
    ],
)
def test_a_spec_that_does_not_fit(spec, message):
    with pytest.raises(LitPWMError, match=message):
        make_env(spec)


def _first_observation(task):
    return make_env(task, seed=6).reset()[0]


@pytest.mark.parametrize(
    "task",
    ["cup-spin", TaskSpec("swimmer-six", "swimmer", "swimmer6", obs_dim=25, action_dim=5)],
    ids=["by name", "by spec"],
)
def test_environments_in_a_spawned_process(task):
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        there = pool.submit(_first_observation, task).result(timeout=60)
    np.testing.assert_array_equal(there, _first_observation(task))


def test_vector_environments():
    envs = gymnasium.vector.SyncVectorEnv([lambda: make_env("cup-catch"), lambda: make_env("cup-catch")])
    first, _ = envs.reset(seed=[3, 4])
    np.testing.assert_array_equal(first[1], make_env("cup-catch", seed=4).reset()[0])
    obs, rewards, _, truncated, _ = envs.step(envs.action_space.sample())
    assert obs.shape == (2, 8)
    assert obs.dtype == np.float32
    assert rewards.shape == (2,)
    assert not truncated.any()
