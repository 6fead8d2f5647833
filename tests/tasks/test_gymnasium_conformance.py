"""What every environment of gymnasium has to do as a task: gymnasium's own of MuJoCo, and one of somebody's own."""

import re
from functools import partial

import gymnasium
import numpy as np
import point_mass
import pytest
from gymnasium.utils.env_checker import check_env
from task_checks import GENERAL_CHECKS, Check, Make, actions
from task_faults import GENERAL_FAULTS, Fault

from lit_pwm.tasks import TaskSpec, make_env
from lit_pwm.tasks.environment import ResetNeededError

OWN = TaskSpec("point-mass", make="point_mass:make", kwargs={"field": 3.0})
MUJOCO = sorted(
    entry.id
    for entry in gymnasium.registry.values()
    if re.search(r"envs\.mujoco\.\w+_v5:", str(entry.entry_point)) and entry.version == 5
)
TASKS = [*(f"gym:{env_id}" for env_id in MUJOCO), OWN]


def bare_environment(env: gymnasium.Env) -> gymnasium.Env:
    """The environment as its own makers run it."""
    spec = env.unwrapped.task_spec
    if spec.name == OWN.name:
        return point_mass.make(**OWN.kwargs)
    return gymnasium.make(spec.kwargs["id"], disable_env_checker=True)


def as_the_environment_has_it(bare: gymnasium.Env, action: np.ndarray) -> np.ndarray:
    """An action in [-1, 1] between the environment's bounds, by another formula than ours, which float32 hides."""
    low, high = bare.action_space.low.astype(np.float64), bare.action_space.high.astype(np.float64)
    wanted = np.interp(action, [-1, 1], [0, 1]) * (high - low) + low
    return wanted.astype(bare.action_space.dtype)


def check_dimensions_are_the_environments(make: Make) -> None:
    env = make()
    spec, bare = env.unwrapped.task_spec, bare_environment(env)
    assert env.observation_space.shape == (spec.obs_dim,) == (gymnasium.spaces.flatdim(bare.observation_space),)
    assert env.action_space.shape == (spec.action_dim,) == bare.action_space.shape
    assert spec.low == tuple(bare.action_space.low.tolist())
    assert spec.high == tuple(bare.action_space.high.tolist())
    assert sum(width for _, width in spec.obs_keys) == spec.obs_dim


def check_episodes_are_the_environments_own(make: Make) -> None:
    """Observations, rewards and ends of two episodes, of which the second goes on in the random stream."""
    env = make(seed=3)
    bare = bare_environment(env)
    for seed in (3, None):
        obs, expected = env.reset()[0], bare.reset(seed=seed)[0]
        for action in actions(env, 120):
            np.testing.assert_array_equal(obs, gymnasium.spaces.flatten(bare.observation_space, expected).astype("f4"))
            obs, reward, terminated, truncated, _ = env.step(action)
            expected, earned, ended, cut, _ = bare.step(as_the_environment_has_it(bare, action))
            assert reward == float(earned)
            assert (terminated, truncated) == (ended, cut and not ended)
            if ended or cut:
                break


def check_rewards_are_floats(make: Make) -> None:
    env = make()
    env.reset()
    reward = env.step(actions(env, 1)[0])[1]
    assert type(reward) is float


def check_episodes_end_by_the_time_limit(make: Make) -> None:
    """With actions of zero, which end nothing or all; no episode is longer than it says, and each has one end."""
    env = make()
    env.reset()
    for step in range(env.unwrapped.task_spec.episode_length):
        _, _, terminated, truncated, _ = env.step(np.zeros(env.action_space.shape))
        assert not (terminated and truncated)
        if terminated:
            break
        assert truncated == (step + 1 == env.unwrapped.task_spec.episode_length)
    assert terminated or truncated
    with pytest.raises(ResetNeededError):
        env.step(np.zeros(env.action_space.shape))


class OtherBounds(Fault):
    def __init__(self, env, seed=0):
        super().__init__(env, seed)
        spec = env.unwrapped.task_spec
        env.unwrapped.task_spec = type(spec)(**{**vars(spec), "high": (9.0,) * spec.action_dim})


class HalfActions(Fault):
    def change_action(self, action):
        return np.asarray(action) / 2


class TwoEnds(Fault):
    def change_end(self, terminated, truncated):
        return terminated, truncated or terminated


class NumpyReward(Fault):
    def change_reward(self, reward):
        return np.float64(reward)


class EndlessEpisode(Fault):
    def change_end(self, terminated, truncated):
        return False, False


FAULTS: list[tuple[Check, type[Fault]]] = [
    *GENERAL_FAULTS,
    (check_dimensions_are_the_environments, OtherBounds),
    (check_episodes_are_the_environments_own, HalfActions),
    (check_episodes_are_the_environments_own, TwoEnds),
    (check_rewards_are_floats, NumpyReward),
    (check_episodes_end_by_the_time_limit, EndlessEpisode),
    (check_episodes_end_by_the_time_limit, TwoEnds),
]
CHECKS = [*GENERAL_CHECKS, *(value for name, value in list(globals().items()) if name.startswith("check_"))]
CHECKS.remove(check_env)


def test_all_of_gymnasiums_mujoco_is_here():
    assert {"Ant-v5", "HalfCheetah-v5", "Hopper-v5", "Humanoid-v5", "HumanoidStandup-v5", "InvertedDoublePendulum-v5",
            "InvertedPendulum-v5", "Pusher-v5", "Reacher-v5", "Swimmer-v5", "Walker2d-v5"} == set(MUJOCO)  # fmt: skip


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task if isinstance(task, str) else task.name)
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_gymnasium_task_conforms(check, task):
    check(partial(make_env, task))


@pytest.mark.filterwarnings("ignore:.*A Box observation space (min|max)imum value is -?infinity.*")
@pytest.mark.parametrize("task", TASKS, ids=lambda task: task if isinstance(task, str) else task.name)
def test_gymnasiums_own_checker(task):
    check_env(make_env(task), skip_render_check=True)


@pytest.mark.parametrize(("check", "fault"), FAULTS, ids=lambda value: value.__name__)
def test_check_notices_a_broken_gymnasium_task(check, fault):
    check(partial(make_env, "gym:Hopper-v5"))
    with pytest.raises((AssertionError, pytest.fail.Exception, ResetNeededError)):
        check(lambda seed=0: fault(make_env("gym:Hopper-v5", seed=seed), seed))


def test_every_check_of_gymnasium_tasks_is_shown_to_notice_something():
    assert {check for check, _ in FAULTS} == set(CHECKS)
