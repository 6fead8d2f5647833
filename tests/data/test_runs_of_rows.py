"""Runs are what an index for each row gives, to the bit."""

import numpy as np
import pytest

from datamodules.runs_of_rows import gather_runs, time_major

RANDOM = np.random.default_rng(0)


@pytest.fixture(params=[(50, 7), (50,), (50, 1)], ids=str)
def rows(request):
    """All bit patterns: NaN with payloads, infinities, -0 and denormals."""
    bits = RANDOM.integers(0, 2**32, request.param, dtype=np.uint32)
    bits.reshape(50, -1)[:4, 0] = 0x80000000, 0x7FC00123, 0xFFABCDEF, 0x00000001
    return bits.view(np.float32)


@pytest.mark.parametrize("length", [1, 5, 50])
def test_runs_are_rows_to_the_bit(rows, length):
    starts = RANDOM.integers(0, 50 - length + 1, 64)
    found = gather_runs(rows, starts, length)
    expected = rows.reshape(50, -1)[starts[:, None] + np.arange(length)]
    assert found.tobytes() == expected.tobytes()
    assert found.flags.owndata or found.base.flags.owndata
    turned = time_major(found, slice(2))
    assert turned.flags.c_contiguous
    assert turned.tobytes() == np.ascontiguousarray(expected[..., :2].swapaxes(0, 1)).tobytes()


def test_last_rows_stand_for_what_is_behind_them(rows):
    starts = np.array([0, 3, 44, 47, 49, 49])
    last = np.array([4, 4, 49, 49, 49, 49])
    found = gather_runs(rows, starts, 6, last)
    expected = rows.reshape(50, -1)[np.minimum(starts[:, None] + np.arange(6), last[:, None])]
    assert found.tobytes() == expected.tobytes()
    longer = gather_runs(rows[:3], np.array([0, 2]), 6, np.array([2, 2]))  # than there are rows
    assert longer.tobytes() == rows.reshape(50, -1)[[[0, 1, 2, 2, 2, 2], [2] * 6]].tobytes()


@pytest.mark.parametrize("start", [46, 50, 10**12])
def test_a_run_beyond_the_array_is_an_error(rows, start):
    with pytest.raises(IndexError):
        gather_runs(rows, np.array([0, start]), 5)
    with pytest.raises(IndexError):
        gather_runs(rows[:3], np.array([0]), 5)
