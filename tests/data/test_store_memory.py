"""A store larger than memory can be used: nothing is loaded whole."""

import subprocess
import sys

import h5py
import numpy as np
import pytest

from datamodules.layout import FORMAT

EPISODES, LENGTH, OBS_DIM = 3000, 500, 64
MEGABYTES = EPISODES * (LENGTH + 1) * (OBS_DIM + 4 + 1) * 4 / 1e6
LIMIT = 700_000_000  # of which torch takes about half

SCRIPT = """
import sys
from pathlib import Path

def anonymous():
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("RssAnon")).split()[1]) / 1000

import torch
from datamodules import MultitaskDataModule
from datamodules.check import check, info

torch.set_num_threads(1)
before = anonymous()
data = MultitaskDataModule(sys.argv[1], horizon=16, batch_size=256, batches_per_epoch=300)
data.setup()
touched = sum(float(batch["obs"].sum()) for batch in data.train_dataloader())
touched += sum(float(batch["obs"].sum()) for batch in data.val_dataloader())
data.observation_statistics()
print("training", anonymous() - before)
info(sys.argv[1])
assert check(sys.argv[1]) == []
print("checking", anonymous() - before)
"""


@pytest.fixture
def large_store(tmp_path):
    """415 MB of zeros with the NaN where they belong, quickly made because zeros that nobody wrote take no disk."""
    path, rows = tmp_path / "large.h5", EPISODES * (LENGTH + 1)
    ends = np.arange(1, EPISODES + 1) * (LENGTH + 1) - 1
    with h5py.File(path, "w") as file:
        file.attrs.update({"format": FORMAT, "format_version": 1, "action_repeat": 2})
        file.attrs["task_names"] = np.array(["a"], dtype=h5py.string_dtype())
        file.attrs["obs_dims"], file.attrs["action_dims"] = [OBS_DIM], [4]
        offsets = {}
        for name, shape, dtype in (
            ("obs", (rows, OBS_DIM), "f4"), ("action", (rows, 4), "f4"), ("reward", (rows,), "f4"),
            ("terminated", (rows,), "u1"),
        ):  # fmt: skip
            dataset = file.create_dataset(name, shape, dtype)
            dataset[-1] = 0  # makes HDF5 give it its place in the file
            offsets[name] = dataset.id.get_offset()
        file["episode/offset"] = ends - LENGTH
        file["episode/length"] = np.full(EPISODES, LENGTH + 1)
        file["episode/task"] = np.zeros(EPISODES, np.int32)
        file["episode/source"] = np.full(EPISODES, b"zeros", h5py.string_dtype("utf-8", 5))
    for name, shape in (("action", (rows, 4)), ("reward", (rows,))):
        np.memmap(path, "f4", "r+", offsets[name], shape)[ends] = np.nan
    return path


def test_memory_stays_small_while_all_of_a_large_store_is_read(large_store):
    """Private memory is measured, and limited as on a machine that has less than the store has rows.

    The limit holds for what the system would have to provide in the worst case: a mapping that could be written to, as
    numpy's mode 'c', counts in full.
    """
    assert large_store.stat().st_size / 1e6 == pytest.approx(MEGABYTES, rel=0.01)
    script = f"import resource; resource.setrlimit(resource.RLIMIT_DATA, ({LIMIT},) * 2)\n" + SCRIPT
    done = subprocess.run(
        [sys.executable, "-c", script, str(large_store)], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    used = {line.split()[0]: float(line.split()[1]) for line in done.stdout.splitlines()}
    assert set(used) == {"training", "checking"}
    assert used["training"] < 60
    assert used["checking"] < 120
