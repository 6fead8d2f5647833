"""Every legal window occurs, none crosses an episode, all are equally likely, and ranks share one batch."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from datamodules import SliceSampler
from lit_pwm.errors import LitPWMError

LENGTHS = st.lists(st.integers(1, 12), min_size=1, max_size=8)


def legal(lengths, horizon):
    """All (episode, start) whose H transitions lie inside the episode, by the definition."""
    return [(e, t) for e, length in enumerate(lengths) for t in range(length) if t + horizon <= length]


def drawn(sampler, batches, size):
    """Counts of (episode, start) over some batches."""
    counts = {}
    for step in range(batches):
        windows = sampler.sample(step, size)
        for window in zip(windows.episode.tolist(), windows.start.tolist(), strict=True):
            counts[window] = counts.get(window, 0) + 1
    return counts


@settings(max_examples=60, deadline=None)
@given(LENGTHS, st.integers(1, 12), st.sampled_from(["transitions", "tasks"]), st.integers(0, 2**40))
def test_exactly_the_legal_windows_occur(lengths, horizon, balance, seed):
    tasks = [e % 3 for e in range(len(lengths))]
    windows = legal(lengths, horizon)
    if not windows:
        with pytest.raises(LitPWMError, match=f"no slice of horizon {horizon}.*at most {max(lengths)}"):
            SliceSampler(lengths, horizon, tasks, balance, seed)
        return
    sampler = SliceSampler(lengths, horizon, tasks, balance, seed)
    assert sampler.num_windows == len(windows)
    located = sampler.locate(np.arange(sampler.num_windows))
    assert sorted(zip(located.episode.tolist(), located.start.tolist(), strict=True)) == windows
    # 40 n draws miss one of n (at most 96, or in three groups of tasks) windows with probability below 1e-4.
    size = len(windows)
    assert set(drawn(sampler, 40, size)) <= set(windows)


@pytest.mark.parametrize("balance", ["transitions", "tasks"])
@pytest.mark.parametrize("seed", [0, 1])
def test_every_legal_window_is_drawn_equally_often(balance, seed):
    lengths, tasks, horizon = [3, 9, 4, 2, 17, 5, 6], [0, 0, 1, 1, 0, 2, 2], 4
    windows = legal(lengths, horizon)
    counts = drawn(SliceSampler(lengths, horizon, tasks, balance, seed), 3000, len(windows))
    assert set(counts) == set(windows)
    observed = np.array([counts[w] for w in windows])
    if balance == "transitions":
        expected = np.full(len(windows), 1 / len(windows))
    else:
        per_task = np.bincount([tasks[e] for e, _ in windows])
        expected = np.array([1 / 3 / per_task[tasks[e]] for e, _ in windows])
    assert chisquare(observed, expected * observed.sum()).pvalue > 1e-3
    # The test has the power to notice a window of double weight.
    skewed = observed + np.eye(len(windows), dtype=int)[0] * observed[0]
    assert chisquare(skewed, expected * skewed.sum()).pvalue < 1e-3


def test_tasks_without_windows_are_never_drawn():
    sampler = SliceSampler([2, 8, 8], 5, [0, 1, 2], "tasks")
    assert {e for e, _ in drawn(sampler, 50, 8)} == {1, 2}


@settings(max_examples=40, deadline=None)
@given(LENGTHS, st.integers(0, 1000), st.integers(0, 2**31), st.sampled_from([1, 2, 3, 4]))
def test_the_ranks_shares_together_are_the_batch(lengths, step, seed, world_size):
    sampler = SliceSampler([*lengths, 20], 3, seed=seed)
    whole = sampler.sample(step, 12)
    shares = [sampler.sample(step, 12, rank, world_size) for rank in range(world_size)]
    np.testing.assert_array_equal(whole.episode, np.concatenate([share.episode for share in shares]))
    np.testing.assert_array_equal(whole.start, np.concatenate([share.start for share in shares]))
    assert {len(share.episode) for share in shares} == {12 // world_size}


def test_a_batch_is_a_function_of_seed_and_step_alone():
    def batch(seed, step):
        return SliceSampler([50, 60], 4, seed=seed).sample(step, 30)

    used = SliceSampler([50, 60], 4, seed=3)
    for step in (9, 2, 5):
        used.sample(step, 7)
    np.testing.assert_array_equal(used.sample(5, 30), batch(3, 5))
    others = [batch(3, 6), batch(4, 5), batch(5, 3)]
    assert not any(np.array_equal(batch(3, 5), other) for other in others)


def test_batches_stay_what_they_are():
    """A change of the drawing would change every run with a fixed seed."""
    windows = SliceSampler([10, 20, 5], 4, seed=7).sample(123, 6)
    assert windows.episode.tolist() == [1, 1, 0, 0, 1, 2]
    assert windows.start.tolist() == [1, 12, 0, 1, 0, 0]


@settings(max_examples=60, deadline=None)
@given(LENGTHS, st.integers(1, 6), st.integers(1, 40), st.sampled_from(["transitions", "tasks"]))
def test_validation_windows_are_different_and_spread(lengths, horizon, count, balance):
    lengths = [*lengths, 20]
    sampler = SliceSampler(lengths, horizon, [e % 2 for e in range(len(lengths))], balance)
    windows = sampler.spread(count)
    found = list(zip(windows.episode.tolist(), windows.start.tolist(), strict=True))
    assert len(set(found)) == len(found) <= count
    assert set(found) <= set(legal(lengths, horizon))
    if balance == "transitions":
        everything = legal(lengths, horizon)
        assert len(found) == min(count, len(everything))
        places = sorted(everything.index(window) for window in found)
        gaps = [b - a for a, b in pairwise(places)]
        assert not gaps or max(gaps) - min(gaps) <= 1  # evenly, to one window
    seeded = SliceSampler(lengths, horizon, [e % 2 for e in range(len(lengths))], balance, seed=9).spread(count)
    np.testing.assert_array_equal(seeded, windows)


def test_validation_balanced_by_tasks_takes_the_same_from_each():
    sampler = SliceSampler([100, 10, 10], 1, [0, 1, 1], "tasks")
    assert np.bincount(np.array([0, 1, 1])[sampler.spread(30).episode]).tolist() == [15, 15]


def test_bad_arguments():
    with pytest.raises(LitPWMError, match=r"31 slices was asked for, but the data has 30"):
        SliceSampler([15, 15], 1).sample(0, 31)
    with pytest.raises(LitPWMError, match="no equal share for rank 0 of 2"):
        SliceSampler([15], 1).sample(0, 3, 0, 2)
    with pytest.raises(LitPWMError, match="horizon"):
        SliceSampler([15], 0)
    with pytest.raises(LitPWMError, match="'tasks'"):
        SliceSampler([15], 1, [0], "task")
    with pytest.raises(LitPWMError, match="needs the task of each episode"):
        SliceSampler([15], 1, balance="tasks")
    with pytest.raises(LitPWMError, match="seed"):
        SliceSampler([15], 1, seed=-1)


def test_tasks_are_drawn_by_their_weights():
    """The tasks' own episodes differ in number and length, and one task offers no slice."""
    lengths, tasks = np.array([40, 9, 200, 3, 60, 60]), np.array([0, 1, 0, 2, 3, 1])
    weights = np.array([1.0, 4.0, 100.0, 5.0])  # of task 2, too short, none is drawn
    sampler = SliceSampler(lengths, 5, tasks, "tasks", 3, weights=weights)
    drawn = np.concatenate([sampler.sample(step, 250).episode for step in range(40)])
    counts = np.bincount(tasks[drawn], minlength=4)
    assert counts[2] == 0
    np.testing.assert_allclose(counts[[0, 1, 3]] / 10_000, np.array([1, 4, 5]) / 10, atol=0.02)
    within = np.bincount(drawn[tasks[drawn] == 1], minlength=6)[[1, 5]]  # uniform over a task's slices
    np.testing.assert_allclose(within / within.sum(), np.array([5, 56]) / 61, atol=0.02)


@pytest.mark.parametrize("weights", [[1e308, 1e308, 5e307], [1e-300, 1e-300, 5e-301]])
def test_weights_of_any_magnitude(weights):
    sampler = SliceSampler([30] * 3, 5, [0, 1, 2], "tasks", weights=np.array(weights))
    drawn = np.concatenate([sampler.sample(step, 50).episode for step in range(60)])
    np.testing.assert_allclose(np.bincount(drawn) / 3000, [0.4, 0.4, 0.2], atol=0.04)


def test_weighted_shares_together_are_the_batch():
    sampler = SliceSampler([30, 50, 90], 5, [0, 1, 2], "tasks", 3, weights=np.array([1.0, 2.0, 3.0]))
    whole = sampler.sample(7, 24)
    shares = [sampler.sample(7, 24, rank, 3) for rank in range(3)]
    for name in ("episode", "start"):
        np.testing.assert_array_equal(np.concatenate([getattr(share, name) for share in shares]), getattr(whole, name))
