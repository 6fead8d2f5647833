"""The kicked cart-poles: how often, which way, out of which stream, and nothing else changed."""

from dataclasses import replace

import mujoco
import numpy as np
import pytest

from datamodules import collect
from lit_pwm.evaluation.evaluator import RandomPolicy, evaluate_task
from lit_pwm.tasks import TASK_SETS, make_env, task_spec
from lit_pwm.tasks.vector import close_vector_env, make_vector_env

KICKED = {"cartpole-swingup-kicked": ("cartpole-swingup", 5.06), "cartpole-balance-kicked": ("cartpole-balance", 1.0)}
STATE = mujoco.mjtState.mjSTATE_INTEGRATION


def actions(steps: int) -> np.ndarray:
    return np.random.default_rng(0).uniform(-1, 1, (steps, 1)).astype(np.float32)


def state_of(env) -> np.ndarray:
    model, data = env.unwrapped.physics.model.ptr, env.unwrapped.physics.data.ptr
    state = np.empty(mujoco.mj_stateSize(model, STATE))
    mujoco.mj_getState(model, data, state, STATE)
    return state


def struck_step(stock, state: np.ndarray, action: np.ndarray, speed: float | None) -> np.ndarray:
    """The stock task's observation after a step from this state, its pole struck first."""
    physics = stock.unwrapped.physics
    mujoco.mj_setState(physics.model.ptr, physics.data.ptr, state, STATE)
    if speed is not None:
        physics.data.qvel[1] = speed
    return stock.step(action)[0]


def kicks_of(task: str, episodes: int) -> np.ndarray:
    """The sign of each agent step's kick, 0 for none, found by stepping the stock task beside it; [500 · episodes]."""
    name, speed = KICKED[task]
    env, stock, found = make_env(task), make_env(name), []
    for seed in range(episodes):
        env.reset(seed=seed)
        for step, action in enumerate(actions(500)):
            state = state_of(env)
            obs = env.step(action)[0]
            if step % 150 == 0:
                stock.reset()  # its own episode must not end
            signs = [
                sign
                for sign in (0, 1, -1)
                if np.array_equal(obs, struck_step(stock, state, action, sign * speed if sign else None))
            ]
            assert len(signs) == 1, f"step {step} of seed {seed}: neither the stock task's nor that of one kick"
            found += signs
    return np.array(found)


@pytest.mark.parametrize(("task", "episodes"), [("cartpole-swingup-kicked", 4), ("cartpole-balance-kicked", 1)])
def test_kicks_come_once_in_an_agent_step_at_rate_and_sign(task, episodes):
    kicks = kicks_of(task, episodes)
    count, ups = int(np.abs(kicks).sum()), int((kicks == 1).sum())
    assert abs(count - 0.1 * len(kicks)) < 4 * np.sqrt(len(kicks) * 0.1 * 0.9)
    assert abs(ups - count / 2) < 4 * np.sqrt(count / 4)
    # Independent of each other: after a kick the next comes as often as ever.
    after = np.abs(kicks[1:])[np.abs(kicks[:-1]) == 1]
    assert abs(after.sum() - 0.1 * len(after)) < 4 * np.sqrt(len(after) * 0.09)


@pytest.mark.parametrize("task", KICKED)
def test_without_kicks_it_is_the_stock_task(task):
    env, stock = make_env(task), make_env(KICKED[task][0])
    env.unwrapped.task.kick_probability = 0.0
    for seed in (0, 1):
        np.testing.assert_array_equal(env.reset(seed=seed)[0], stock.reset(seed=seed)[0])
        for action in actions(200):
            (obs, reward, *_), (expected, paid, *_) = env.step(action), stock.step(action)
            np.testing.assert_array_equal(obs, expected)
            assert reward == paid


def test_chances_are_counted_in_control_steps():
    # An agent that holds its actions twice as long meets the same kicks at the same times.
    env = make_env("cartpole-swingup-kicked")
    slow = make_env(replace(task_spec("cartpole-swingup-kicked"), action_repeat=4, episode_length=250))
    env.reset(seed=3), slow.reset(seed=3)
    for action in actions(250):
        env.step(action)
        np.testing.assert_array_equal(env.step(action)[0], slow.step(action)[0])


def test_the_seed_settles_an_episode_also_in_workers():
    seen = {}
    for mode in ("sync", "async"):
        env = make_vector_env("cartpole-swingup-kicked", 2, mode)
        obs = [env.reset(seed=[5, 6])[0]]
        obs += [env.step(np.stack([action, action]))[0] for action in actions(60)]
        seen[mode] = np.stack(obs)
        close_vector_env(env)
    np.testing.assert_array_equal(seen["sync"], seen["async"])
    lone = make_env("cartpole-swingup-kicked")
    lone.reset(seed=6)
    for step, action in enumerate(actions(60)):
        np.testing.assert_array_equal(lone.step(action)[0], seen["sync"][step + 1, 1])


def test_collecting_and_evaluating(tmp_path):
    names = TASK_SETS["stochastic"]
    stores = [collect(names, 2, tmp_path / f"{n}.h5", workers=n, seed=1, progress=False) for n in (1, 2)]
    assert stores[0].tasks == dict.fromkeys(names, (5, 1))
    for one, other in zip(*stores, strict=True):
        np.testing.assert_array_equal(one.obs, other.obs)
        np.testing.assert_array_equal(one.reward, other.reward)
    results = [evaluate_task(RandomPolicy(0), names[0], 3, seed=4) for _ in range(2)]
    assert results[0] == results[1]
    assert len(set(results[0].returns)) == 3
