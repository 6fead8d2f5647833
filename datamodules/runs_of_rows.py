"""Runs of successive rows, gathered from an array many at a time.

A run is copied whole, as one piece of memory, and the runs of a batch are then turned to time-major order in the cache:
several times as fast as an index for each row of each run.
"""

from __future__ import annotations

import numpy as np


def gather_runs(array: np.ndarray, starts: np.ndarray, length: int, last: np.ndarray | None = None) -> np.ndarray:
    """Runs of `length` rows [B, length, W], a new array; the bits of numbers are kept, whatever they mean.

    Args:
        array: rows [N, W], or [N], of which W is then 1; C-contiguous.
        starts: first rows [B].
        length: rows of each run, from 0 on.
        last: rows beyond which nothing is read [B]; they stand in place of those behind them. If it is not given, all
            runs must lie inside the array.

    Raises:
        IndexError: a run does not.
    """
    rows = array.reshape(len(array), -1)
    width, step = rows.shape[1], rows.strides[0]
    if last is None:
        places = len(array) - length + 1
        whole = np.lib.stride_tricks.as_strided(
            rows, (max(places, 0), length * width), (step, rows.itemsize), writeable=False
        )
        return whole[starts].reshape(len(starts), length, width)
    inside = starts + length - 1 <= last
    if inside.all():
        return gather_runs(array, starts, length)
    runs = np.empty((len(starts), length, width), array.dtype)
    runs[inside] = gather_runs(array, starts[inside], length)
    runs[~inside] = rows[np.minimum(starts[~inside, None] + np.arange(length), last[~inside, None])]
    return runs


def time_major(runs: np.ndarray, columns: slice = slice(None)) -> np.ndarray:
    """Some columns of runs [B, length, W], a new array [length, B, columns].

    By numpy, because torch would spread so small a copy over threads, which are slower on cores that are busy.
    """
    return np.ascontiguousarray(runs[:, :, columns].swapaxes(0, 1))
