"""What every task has to do, whatever its simulator.

A check is a plain function of `make(seed=0) -> gymnasium.Env`, so that it can be put to any task, a new one too.
"""

from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import pytest

from lit_pwm.tasks.environment import InvalidActionError

Make = Callable[..., gymnasium.Env]
Check = Callable[[Make], None]


def actions(env: gymnasium.Env, steps: int) -> np.ndarray:
    """Random actions [steps, A], the same at every call, rounded to float32 as policies give them."""
    width = env.unwrapped.task_spec.action_dim
    return np.random.default_rng(0).uniform(-1, 1, (steps, width)).astype(np.float32)


def advance(env: gymnasium.Env, action: Any) -> tuple[np.ndarray, Any]:
    """The observation and the reward of a step, after which another episode is begun where one has ended."""
    obs, reward, terminated, truncated, _ = env.step(action)
    if terminated or truncated:
        env.reset()
    return obs, reward


def episode(env: gymnasium.Env, steps: int, seed: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Observations [steps + 1, O] and rewards [steps] under `actions`, in one episode after another."""
    seen, rewards = [env.reset(seed=seed)[0]], []
    for action in actions(env, steps):
        obs, reward = advance(env, action)
        seen.append(obs)
        rewards.append(reward)
    return np.array(seen), np.array(rewards)


def check_actions_are_bounded_by_one(make: Make) -> None:
    space = make().action_space
    assert space.dtype == np.float32
    np.testing.assert_array_equal(space.low, -1)
    np.testing.assert_array_equal(space.high, 1)


def check_observations_are_flat_finite_float32(make: Make) -> None:
    env = make()
    seen = [env.reset()[0], *(advance(env, action)[0] for action in actions(env, 20))]
    for obs in seen:
        assert isinstance(obs, np.ndarray)
        assert obs.dtype == np.float32
        assert obs.shape == (env.unwrapped.task_spec.obs_dim,)
        assert np.isfinite(obs).all()
        assert obs in env.observation_space


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


def check_any_number_type_is_taken_as_an_action(make: Make) -> None:
    envs = [make(seed=1) for _ in range(3)]
    for env in envs:
        env.reset()
    for action in np.round(actions(envs[0], 10) * 4) / 4:  # quarters are exact in every float type
        kinds = (action.astype(np.float64), action.astype(np.float16), action.tolist())
        results = [advance(env, kind) for env, kind in zip(envs, kinds, strict=True)]
        for obs, reward in results[1:]:
            np.testing.assert_array_equal(obs, results[0][0])
            assert reward == results[0][1]


def check_actions_beyond_the_bounds_act_as_the_bounds(make: Make) -> None:
    inside, outside = make(seed=1), make(seed=1)
    inside.reset(), outside.reset()
    for action in np.sign(actions(inside, 20)):
        obs, reward = advance(inside, action)
        far, paid = advance(outside, 3 * action)
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
        obs = advance(env, action)[0]
        assert not any(np.shares_memory(obs, old) for old in kept)
        np.testing.assert_array_equal(obs, advance(twin, action)[0])
        kept.append(obs)
        before = action.copy()
        obs[:] = np.nan  # whoever writes into it does not disturb the environment
        np.testing.assert_array_equal(action, before)


GENERAL_CHECKS = [value for name, value in list(globals().items()) if name.startswith("check_")]
