"""What every dm_control task has to do, and proof that each of these checks notices a task that does not do it."""

from functools import cache, partial
from importlib import import_module
from typing import Any

import gymnasium
import numpy as np
import pytest
from task_checks import GENERAL_CHECKS, Check, Make, actions
from task_faults import GENERAL_FAULTS, Fault

from lit_pwm.tasks import TASK_SETS, make_env


def dm_control_environment(env: gymnasium.Env, seed: int) -> Any:
    """The task as dm_control itself runs it."""
    spec = env.unwrapped.task_spec
    return import_module(f"{spec.suite}.{spec.domain}").SUITE[spec.task](random=seed)


def flat(time_step: Any) -> np.ndarray:
    return np.concatenate([np.ravel(part) for part in time_step.observation.values()]).astype(np.float32)


def check_dimensions_are_the_registrys(make: Make) -> None:
    env = make()
    spec = env.unwrapped.task_spec
    assert env.observation_space.shape == (spec.obs_dim,)
    assert env.action_space.shape == (spec.action_dim,) == (env.unwrapped.physics.model.nu,)
    parts = env.unwrapped.task.get_observation(env.unwrapped.physics)
    assert tuple((key, np.size(part)) for key, part in parts.items()) == spec.obs_keys


def check_observation_is_the_tasks_own(make: Make) -> None:
    env = make()
    env.reset()
    for action in actions(env, 5):
        obs = env.step(action)[0]
        parts = env.unwrapped.task.get_observation(env.unwrapped.physics).values()
        np.testing.assert_array_equal(obs, np.concatenate([np.ravel(part) for part in parts]).astype(np.float32))


def check_random_stream_is_dm_controls(make: Make) -> None:
    env = make(seed=3)
    reference = dm_control_environment(env, seed=3)
    for _ in range(3):
        np.testing.assert_array_equal(env.reset()[0], flat(reference.reset()))
    np.testing.assert_array_equal(env.reset(seed=4)[0], flat(dm_control_environment(env, seed=4).reset()))


def check_rewards_are_summed_over_two_control_steps(make: Make) -> None:
    env = make(seed=2)
    reference = dm_control_environment(env, seed=2)
    env.reset(), reference.reset()
    # A constant push leads further from the start than noise does, to where sparse rewards begin or end.
    for action in [*actions(env, 40), *np.ones_like(actions(env, 40))]:
        obs, reward, *_ = env.step(action)
        first, second = (reference.step((action.astype(np.float64) + 1.0) - 1.0) for _ in range(2))
        assert reward == first.reward + second.reward
        np.testing.assert_array_equal(obs, flat(second))


def check_rewards_are_floats_from_0_to_2(make: Make) -> None:
    env = make()
    env.reset()
    for action in actions(env, 200):
        reward = env.step(action)[1]
        assert isinstance(reward, float)
        assert not isinstance(reward, np.floating)
        assert 0 <= reward <= 2


def check_episode_is_truncated_after_500_steps(make: Make) -> None:
    env = make()
    env.reset()
    ends = [env.step(action)[2:4] for action in actions(env, 500)]
    assert ends == [(False, False)] * 499 + [(False, True)]
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step(actions(env, 1)[0])
    # dm_control ends at the same step.
    reference = dm_control_environment(env, seed=0)
    reference.reset()
    steps = [reference.step(np.zeros(env.action_space.shape)) for _ in range(1000)]
    assert [step.last() for step in steps] == [False] * 999 + [True]
    assert {step.discount for step in steps} == {1.0}


def check_actions_are_read_in_float64(make: Make) -> None:
    one, other = make(seed=1), make(seed=1)
    one.reset(), other.reset()
    fine = actions(one, 1)[0].astype(np.float64) * 0.5
    one.step(fine), other.step(fine + 1e-9)  # not to be told apart in float32
    assert (one.unwrapped.physics.data.ctrl != other.unwrapped.physics.data.ctrl).any()


class WideObservationSpace(Fault):
    def __init__(self, env, seed=0):
        super().__init__(env, seed)
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (24,), np.float32)


class ReorderedObservations(Fault):
    def change_obs(self, obs):
        return obs[::-1].copy()


class ReseededEachEpisode(Fault):
    def use_seed(self, seed):
        return self.seed + self.episodes if seed is None else seed


class MeanReward(Fault):
    def change_reward(self, reward):
        return reward / 2


class OneControlStep(Fault):
    def __init__(self, env, seed=0):
        super().__init__(env, seed)
        env.unwrapped.task_spec = type(env.unwrapped.task_spec)(
            **{**vars(env.unwrapped.task_spec), "action_repeat": 1, "episode_length": 500}
        )


class NegativeReward(Fault):
    def change_reward(self, reward):
        return reward - 2.5


class NumpyReward(Fault):
    def change_reward(self, reward):
        return np.float64(reward)


class ShortEpisode(Fault):
    def change_end(self, terminated, truncated):
        return terminated, truncated or self.steps == 499


class TerminatedEpisode(Fault):
    def change_end(self, terminated, truncated):
        return terminated or truncated, False


class EndlessEpisode(Fault):
    def step(self, action):
        if self.steps == 500:
            self.reset()
        return super().step(action)


class SingleActions(Fault):
    def change_action(self, action):
        return np.asarray(action, dtype=np.float32)


FAULTS: list[tuple[Check, type[Fault]]] = [
    *GENERAL_FAULTS,
    (check_dimensions_are_the_registrys, WideObservationSpace),
    (check_observation_is_the_tasks_own, ReorderedObservations),
    (check_random_stream_is_dm_controls, ReseededEachEpisode),
    (check_rewards_are_summed_over_two_control_steps, MeanReward),
    (check_rewards_are_summed_over_two_control_steps, OneControlStep),
    (check_rewards_are_floats_from_0_to_2, NegativeReward),
    (check_rewards_are_floats_from_0_to_2, NumpyReward),
    (check_episode_is_truncated_after_500_steps, ShortEpisode),
    (check_episode_is_truncated_after_500_steps, TerminatedEpisode),
    (check_episode_is_truncated_after_500_steps, EndlessEpisode),
    (check_actions_are_read_in_float64, SingleActions),
]
CHECKS = [*GENERAL_CHECKS, *(value for name, value in list(globals().items()) if name.startswith("check_"))]


@pytest.fixture(scope="module", autouse=True)
def compiled_once():
    """Hand out copies of models already compiled: drawing a model's textures takes 70 ms, nearly all of these tests."""
    from dm_control.mujoco.wrapper import core
    from dm_control.suite import common

    compiled = cache(lambda xml: compile_model(xml, common.ASSETS))
    compile_model = core.MjModel.from_xml_string
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(core.MjModel, "from_xml_string", lambda xml, assets=None: compiled(xml).copy())
        yield


@pytest.mark.parametrize("task", [*TASK_SETS["mt30"], *TASK_SETS["stochastic"]])
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_task_conforms(check, task):
    check(partial(make_env, task))


@pytest.mark.parametrize(("check", "fault"), FAULTS, ids=lambda value: value.__name__)
def test_check_notices_a_broken_task(check, fault):
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        check(lambda seed=0: fault(make_env("cartpole-swingup", seed=seed), seed))


def test_every_check_is_shown_to_notice_something():
    assert {check for check, _ in FAULTS} == set(CHECKS)
