"""Futures are the simulator's: exactly the episode without randomness, and alike it with."""

import numpy as np
import pytest
from stochastic_futures import Futures, held_out_futures

from lit_pwm.measures.scores import rank_histogram
from lit_pwm.tasks import make_env


def futures(env, samples=2, **options):
    return held_out_futures(env, **({"episodes": 1, "starts": 4} | options), samples=samples)


@pytest.fixture
def calm():
    env = make_env("cartpole-swingup-kicked")
    env.unwrapped.task.kick_probability = 0.0
    return env


def test_without_kicks_every_future_is_the_episodes_own(calm):
    found = futures(calm)
    assert found.samples.shape == (2, 16, 4, 5)
    np.testing.assert_array_equal(found.samples, np.stack([found.outcome] * 2))


def test_contacts_are_restored_too():
    # A walker's contact forces depend on the solver's warm start, which positions and velocities do not hold.
    found = futures(make_env("walker-walk"))
    np.testing.assert_array_equal(found.samples, np.stack([found.outcome] * 2))


def test_the_first_step_follows_from_the_observation_given(calm):
    found, env = futures(calm), make_env("cartpole-swingup")
    env.reset(seed=0)
    for obs, action, after in zip(found.obs, found.action[0], found.outcome[0], strict=True):
        with env.unwrapped.physics.reset_context():
            env.unwrapped.physics.data.qpos[:] = obs[0], np.arctan2(obs[2], obs[1])
            env.unwrapped.physics.data.qvel[:] = obs[3:]
        np.testing.assert_allclose(env.step(action)[0], after, atol=2e-5)


def test_with_kicks_futures_differ_as_often_as_kicks_come():
    found = futures(make_env("cartpole-swingup-kicked"), samples=40, starts=6)
    counts = [np.unique(found.samples[:, 0, n], axis=0, return_counts=True)[1] for n in range(6)]
    assert max(map(len, counts)) == 3  # unkicked, kicked up, kicked down
    assert abs(np.mean([c.max() / 40 for c in counts]) - 0.9) < 4 * np.sqrt(0.09 / 240)
    late = [len(np.unique(found.samples[:, -1, n], axis=0)) for n in range(6)]
    assert min(late) > 15
    # The episode is one more such future.
    histogram = rank_histogram(found.samples[:8, 8:], found.outcome[8:])
    assert histogram.max() < 0.3


def test_one_seed_gives_one_set_of_futures(tmp_path):
    env = make_env("cartpole-swingup-kicked")
    one, again, other = futures(env), futures(env), futures(env, seed=1)
    for name in vars(one):
        np.testing.assert_array_equal(getattr(one, name), getattr(again, name))
    assert not np.array_equal(one.obs, other.obs)
    one.save(tmp_path / "f.npz")
    read = Futures.load(tmp_path / "f.npz")
    for name in vars(one):
        np.testing.assert_array_equal(getattr(one, name), getattr(read, name))
