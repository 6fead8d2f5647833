"""Noises have the properties that they are named for, and depend on their episode's generator alone."""

import numpy as np
import pytest

from datamodules import behaviours
from datamodules.behaviours import bang_bang, check_behaviour, make_behaviour, ornstein_uhlenbeck, pink, square_wave
from lit_pwm.errors import LitPWMError


def generators(count, first=0):
    return [np.random.default_rng(seed) for seed in range(first, first + count)]


@pytest.mark.parametrize("name", ["random", "noise"])
def test_an_episodes_actions_depend_on_its_generator_alone(name):
    behaviour, obs = make_behaviour(name), np.zeros((4, 5), np.float32)
    behaviour.reset("any", 3, 50, generators(4))
    together = np.stack([behaviour.act(obs, step) for step in range(50)])
    assert together.shape == (50, 4, 3)
    assert together.dtype == np.float32
    assert np.abs(together).max() <= 1
    behaviour.reset("any", 3, 50, generators(1, first=2))
    np.testing.assert_array_equal(np.stack([behaviour.act(obs[:1], s) for s in range(50)])[:, 0], together[:, 2])


def test_random_is_uniform():
    values = behaviours.uniform(np.random.default_rng(0), 10_000, 2)
    assert abs(values.mean()) < 0.02
    assert values.var() == pytest.approx(1 / 3, rel=0.03)


def test_ornstein_uhlenbeck_has_unit_scale_and_memory():
    drawn = np.stack([ornstein_uhlenbeck(generator, 400, 2) for generator in generators(60)])
    assert drawn.var() == pytest.approx(1, rel=0.1)
    memory = [np.corrcoef(x[:-1, 0], x[1:, 0])[0, 1] for x in drawn]
    assert 0.5 < min(memory) < 0.85 < max(memory) < 1  # correlation times of 3 to 50 steps


def test_pink_noise_falls_as_one_over_f():
    drawn = np.stack([pink(generator, 512, 1)[:, 0] for generator in generators(200)])
    assert drawn.std() == pytest.approx(1, rel=0.05)
    power = (np.abs(np.fft.rfft(drawn, axis=1)) ** 2).mean(axis=0)[1:-1]
    slope = np.polyfit(np.log(np.arange(1, len(power) + 1)), np.log(power), 1)[0]
    assert slope == pytest.approx(-1, abs=0.1)
    for length in (1, 2, 3, 501):
        assert pink(np.random.default_rng(0), length, 2).shape == (length, 2)


def holds(signal):
    """Lengths of the runs of equal values."""
    edges = np.flatnonzero(np.diff(signal)) + 1
    return np.diff([0, *edges, len(signal)])


def test_bang_bang_is_held_at_full_force():
    drawn = bang_bang(np.random.default_rng(0), 20_000, 1)[:, 0]
    assert set(np.unique(drawn)) == {-1, 1}
    assert 25 < holds(drawn).mean() < 37  # held 15.5 steps on average, and every other draw changes the sign


def test_square_wave_has_a_period_and_in_half_of_the_episodes_a_window_of_zeros():
    zeros, periods = 0, []
    for generator in generators(200):
        signal = square_wave(generator, 500, 1)[:, 0]
        zeros += bool((signal == 0).any())
        assert len(np.unique(np.abs(signal[signal != 0]))) <= 1
        if not (signal == 0).any():
            periods.append(2 * np.median(holds(signal)[1:-1]))
    assert 70 < zeros < 130
    assert min(periods) >= 5
    assert 60 < max(periods) <= 82


def test_the_mix_holds_all_kinds():
    drawn = [behaviours.mixed(generator, 200, 1)[:, 0] for generator in generators(100)]
    binary = sum(len(np.unique(np.abs(x))) <= 2 for x in drawn)
    assert 30 < binary < 70
    assert sum(bool((x == 0).sum() > 3) for x in drawn) > 5


def test_an_unknown_behaviour_is_refused(tmp_path):
    with pytest.raises(LitPWMError, match="Did you mean 'noise'"):
        check_behaviour("noisy")
    with pytest.raises(LitPWMError, match="'random' nor 'noise'"):
        check_behaviour(str(tmp_path / "last.ckpt"))
