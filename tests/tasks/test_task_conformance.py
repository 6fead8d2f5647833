"""What every dm_control task has to do, and proof that each of these checks notices a task that does not do it.

A check is a plain function of `make(seed=0) -> gymnasium.Env`, so that it can be put to any task, a new one too.
"""

from collections.abc import Callable
from functools import cache, partial
from importlib import import_module
from typing import Any

import gymnasium
import numpy as np
import pytest

from lit_pwm.tasks import TASK_SETS, make_env
from lit_pwm.tasks.environment import InvalidActionError

Make = Callable[..., gymnasium.Env]


def actions(env: gymnasium.Env, steps: int) -> np.ndarray:
    """Random actions [steps, A], the same at every call, rounded to float32 as policies give them."""
    width = env.unwrapped.task_spec.action_dim
    return np.random.default_rng(0).uniform(-1, 1, (steps, width)).astype(np.float32)


def episode(env: gymnasium.Env, steps: int, seed: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Observations [steps + 1, O] and rewards [steps] under `actions`."""
    seen, rewards = [env.reset(seed=seed)[0]], []
    for action in actions(env, steps):
        obs, reward, *_ = env.step(action)
        seen.append(obs)
        rewards.append(reward)
    return np.array(seen), np.array(rewards)


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


def check_actions_are_bounded_by_one(make: Make) -> None:
    space = make().action_space
    assert space.dtype == np.float32
    np.testing.assert_array_equal(space.low, -1)
    np.testing.assert_array_equal(space.high, 1)


def check_observations_are_flat_finite_float32(make: Make) -> None:
    env = make()
    seen = [env.reset()[0], *(env.step(action)[0] for action in actions(env, 20))]
    for obs in seen:
        assert isinstance(obs, np.ndarray)
        assert obs.dtype == np.float32
        assert obs.shape == (env.unwrapped.task_spec.obs_dim,)
        assert np.isfinite(obs).all()
        assert obs in env.observation_space


def check_observation_is_the_tasks_own(make: Make) -> None:
    env = make()
    env.reset()
    for action in actions(env, 5):
        obs = env.step(action)[0]
        parts = env.unwrapped.task.get_observation(env.unwrapped.physics).values()
        np.testing.assert_array_equal(obs, np.concatenate([np.ravel(part) for part in parts]).astype(np.float32))


def check_same_seed_gives_the_same_episode(make: Make) -> None:
    for one, other in zip(episode(make(seed=5), 50), episode(make(seed=5), 50), strict=True):
        np.testing.assert_array_equal(one, other)


def check_initial_state_is_random(make: Make) -> None:
    env = make()
    starts = [env.reset()[0], env.reset()[0], env.reset(seed=1)[0], env.reset(seed=2)[0]]
    assert len({start.tobytes() for start in starts}) == 4


def check_reset_with_a_seed_is_a_fresh_environment(make: Make) -> None:
    used = make(seed=0)
    episode(used, 30)
    episode(used, 30)
    fresh = make(seed=8)
    for one, other in zip(episode(used, 30, seed=8), episode(fresh, 30), strict=True):
        np.testing.assert_array_equal(one, other)


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


def check_any_number_type_is_taken_as_an_action(make: Make) -> None:
    envs = [make(seed=1) for _ in range(3)]
    for env in envs:
        env.reset()
    for action in np.round(actions(envs[0], 10) * 4) / 4:  # quarters are exact in every float type
        kinds = (action.astype(np.float64), action.astype(np.float16), action.tolist())
        results = [env.step(kind)[:2] for env, kind in zip(envs, kinds, strict=True)]
        for obs, reward in results[1:]:
            np.testing.assert_array_equal(obs, results[0][0])
            assert reward == results[0][1]


def check_actions_are_read_in_float64(make: Make) -> None:
    one, other = make(seed=1), make(seed=1)
    one.reset(), other.reset()
    fine = actions(one, 1)[0].astype(np.float64) * 0.5
    one.step(fine), other.step(fine + 1e-9)  # not to be told apart in float32
    assert (one.unwrapped.physics.data.ctrl != other.unwrapped.physics.data.ctrl).any()


def check_actions_beyond_the_bounds_act_as_the_bounds(make: Make) -> None:
    inside, outside = make(seed=1), make(seed=1)
    inside.reset(), outside.reset()
    for action in np.sign(actions(inside, 20)):
        obs, reward, *_ = inside.step(action)
        far, paid, *_ = outside.step(3 * action)
        np.testing.assert_array_equal(far, obs)
        assert paid == reward


def check_bad_actions_are_refused(make: Make) -> None:
    env = make()
    env.reset()
    width = env.unwrapped.task_spec.action_dim
    for bad in (np.zeros(width + 1), np.zeros((1, width)), np.full(width, np.nan), np.full(width, np.inf)):
        with pytest.raises(InvalidActionError):
            env.step(bad)


def check_returned_observations_are_the_callers(make: Make) -> None:
    env, twin = make(seed=1), make(seed=1)
    kept = [env.reset()[0]]
    twin.reset()
    for action in actions(env, 5):
        obs = env.step(action)[0]
        assert not any(np.shares_memory(obs, old) for old in kept)
        np.testing.assert_array_equal(obs, twin.step(action)[0])
        kept.append(obs)
        before = action.copy()
        obs[:] = np.nan  # whoever writes into it does not disturb the environment
        np.testing.assert_array_equal(action, before)


class Fault(gymnasium.Wrapper):
    """A correct task with one thing wrong; the seed its environment was made with is `seed`."""

    def __init__(self, env: gymnasium.Env, seed: int = 0) -> None:
        super().__init__(env)
        self.seed, self.steps, self.episodes = seed, 0, 0

    def reset(self, *, seed=None, options=None):
        self.steps, self.episodes = 0, self.episodes + 1
        obs, info = self.env.reset(seed=self.use_seed(seed), options=options)
        return self.change_obs(obs), info

    def step(self, action):
        self.steps += 1
        obs, reward, terminated, truncated, info = self.env.step(self.change_action(action))
        return self.change_obs(obs), self.change_reward(reward), *self.change_end(terminated, truncated), info

    def use_seed(self, seed):
        return seed

    def change_action(self, action):
        return action

    def change_obs(self, obs):
        return obs

    def change_reward(self, reward):
        return reward

    def change_end(self, terminated, truncated):
        return terminated, truncated


class WideObservationSpace(Fault):
    def __init__(self, env, seed=0):
        super().__init__(env, seed)
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (24,), np.float32)


class WideActionSpace(Fault):
    def __init__(self, env, seed=0):
        super().__init__(env, seed)
        self.action_space = gymnasium.spaces.Box(-2.0, 2.0, env.action_space.shape, np.float32)


class PaddedObservations(Fault):
    def change_obs(self, obs):
        return np.pad(obs, (0, 1))


class DoubleObservations(Fault):
    def change_obs(self, obs):
        return obs.astype(np.float64)


class ReorderedObservations(Fault):
    def change_obs(self, obs):
        return obs[::-1].copy()


class UnseededNoise(Fault):
    def change_obs(self, obs):
        return obs + np.random.default_rng().normal(size=obs.shape).astype(np.float32)


class OneInitialState(Fault):
    def use_seed(self, seed):
        return 0


class DeafToSeeds(Fault):
    def use_seed(self, seed):
        return None


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


class TypeDependentActions(Fault):
    def change_action(self, action):
        return np.asarray(action) * (0.5 if np.asarray(action).dtype == np.float16 else 1.0)


class SingleActions(Fault):
    def change_action(self, action):
        return np.asarray(action, dtype=np.float32)


class WrappedActions(Fault):
    def change_action(self, action):
        return (np.asarray(action) + 1) % 2 - 1 if np.abs(action).max() > 1 else action


class MendedActions(Fault):
    def change_action(self, action):
        return np.nan_to_num(np.resize(action, self.env.action_space.shape), posinf=1.0)


class ReusedBuffer(Fault):
    def change_obs(self, obs):
        if self.steps + self.episodes == 1:
            self.buffer = obs
        np.copyto(self.buffer, obs)
        return self.buffer


FAULTS: list[tuple[Callable[[Make], None], type[Fault]]] = [
    (check_dimensions_are_the_registrys, WideObservationSpace),
    (check_actions_are_bounded_by_one, WideActionSpace),
    (check_observations_are_flat_finite_float32, PaddedObservations),
    (check_observations_are_flat_finite_float32, DoubleObservations),
    (check_observation_is_the_tasks_own, ReorderedObservations),
    (check_same_seed_gives_the_same_episode, UnseededNoise),
    (check_initial_state_is_random, OneInitialState),
    (check_reset_with_a_seed_is_a_fresh_environment, DeafToSeeds),
    (check_random_stream_is_dm_controls, ReseededEachEpisode),
    (check_rewards_are_summed_over_two_control_steps, MeanReward),
    (check_rewards_are_summed_over_two_control_steps, OneControlStep),
    (check_rewards_are_floats_from_0_to_2, NegativeReward),
    (check_rewards_are_floats_from_0_to_2, NumpyReward),
    (check_episode_is_truncated_after_500_steps, ShortEpisode),
    (check_episode_is_truncated_after_500_steps, TerminatedEpisode),
    (check_episode_is_truncated_after_500_steps, EndlessEpisode),
    (check_any_number_type_is_taken_as_an_action, TypeDependentActions),
    (check_actions_are_read_in_float64, SingleActions),
    (check_actions_beyond_the_bounds_act_as_the_bounds, WrappedActions),
    (check_bad_actions_are_refused, MendedActions),
    (check_returned_observations_are_the_callers, ReusedBuffer),
]
CHECKS = [value for name, value in list(globals().items()) if name.startswith("check_")]


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
