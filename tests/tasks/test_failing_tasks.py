"""The failing cart-poles: where their episodes end, what they pay, and nothing else changed."""

import numpy as np
import pytest

from datamodules import collect
from lit_pwm.evaluation.evaluator import RandomPolicy, evaluate_task
from lit_pwm.tasks import TASK_SETS, make_env, task_spec

STOCK = {"cartpole-dash": "cartpole-swingup", "cartpole-keep-up": "cartpole-balance"}


def failed(task: str, obs: np.ndarray) -> bool:
    """By the observation: position, cosine and sine of the pole's angle, velocity, angular velocity."""
    return abs(obs[0]) >= 1.5 if task == "cartpole-dash" else obs[1] < 0.9


def reward(task: str, obs: np.ndarray) -> float:
    return min(abs(float(obs[3])) / 2, 1.0) if task == "cartpole-dash" else 1.0


@pytest.mark.parametrize("task", STOCK)
def test_they_are_the_stock_tasks_until_they_fail(task):
    """Stepped beside dm_control's stock task, one control step at a time, with actions of several kinds."""
    env, stock = make_env(task).unwrapped, make_env(STOCK[task]).unwrapped
    ends = 0
    for seed in range(6):
        np.testing.assert_array_equal(env.reset(seed=seed)[0], stock.reset(seed=seed)[0])
        actions = np.random.default_rng(seed).uniform(-1, 1, (80, 1)) + (seed % 3 - 1)
        for action in np.clip(actions, -1, 1):
            obs, paid, terminated, truncated, _ = env.step(action)
            expected = 0.0
            for _ in range(2):
                stock.task.before_step(action, stock.physics)
                stock.physics.step()
                seen = np.concatenate([*stock.task.get_observation(stock.physics).values()])
                expected += reward(task, seen)
                if failed(task, seen):
                    break
            np.testing.assert_array_equal(obs, seen.astype(np.float32))
            assert paid == pytest.approx(expected, abs=1e-6)
            assert (terminated, truncated) == (failed(task, seen), False)
            ends += terminated
            if terminated:
                break
    assert 3 <= ends <= 6


def test_who_races_ahead_ends_early_and_who_turns_back_goes_on():
    env = make_env("cartpole-dash")
    returns = {}
    for turns in (False, True):
        obs, way, earned, over = env.reset(seed=0)[0], 1.0, 0.0, False
        while not over:
            position, speed = float(obs[0]), float(obs[3])
            if turns and position * way > 0 and abs(position) + speed**2 / 20 > 1.3:
                way = -way
            obs, paid, terminated, truncated, _ = env.step([way if speed * way < 2.2 else 0.0])
            earned, over = earned + paid, terminated or truncated
        returns[turns] = earned, terminated
    assert returns[False] == (pytest.approx(67, abs=2), True)
    assert returns[True] == (pytest.approx(840, abs=15), False)


def test_collecting_marks_the_ends_and_evaluating_stops_there(tmp_path):
    names = TASK_SETS["failing"]
    store = collect(names, 6, tmp_path / "f.h5", workers=1, seed=1, progress=False)
    assert store.tasks == dict.fromkeys(names, (5, 1))
    for episode in store:
        assert episode.terminated == failed(episode.task, episode.obs[-1])
        assert not any(failed(episode.task, obs) for obs in episode.obs[:-1])
        assert episode.terminated == (len(episode.reward) < task_spec(episode.task).episode_length)
    assert store.terminated().sum() >= 10
    returns = evaluate_task(RandomPolicy(0), "cartpole-keep-up", 3, seed=4).returns
    assert all(10 <= value < 200 for value in returns)
