"""An import that is killed at random moments ends in the same store to the byte."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from chunk_files import chunk_arrays
from tensordict_pickles import save_tensordict

from datamodules.importing import import_data

pytestmark = pytest.mark.faults

IMPORT = """
import sys, time
from datamodules import importing, partial_store, plan_writing
plan_writing._BLOCK_ROWS, plan_writing._NOTE_SECONDS = 300, 0.0
append = partial_store.PartialStore.append
partial_store.PartialStore.append = lambda self, block: (time.sleep(0.02), append(self, block))
print("ready", flush=True)
importing.import_data([sys.argv[1]], sys.argv[2], progress=False)
"""


def test_ten_kills_at_random_moments(tmp_path):
    folder, out, drawn = tmp_path / "chunks", tmp_path / "s.h5", np.random.default_rng(0)
    folder.mkdir()
    for number in range(3):
        chunk = chunk_arrays([0, 4, 8, 3] * 50, 30, seed=number)
        save_tensordict(folder / f"chunk_{number}.pt", chunk, zipped=number != 1)
    import_data([folder], tmp_path / "whole.h5", progress=False)
    command = [sys.executable, "-c", IMPORT, str(folder), str(out)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    kills = 0
    while kills < 10 and not out.exists():
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE)
        process.stdout.readline()
        time.sleep(drawn.uniform(0.0, 2.0))
        process.send_signal(signal.SIGKILL)
        kills += process.wait() == -signal.SIGKILL
        process.stdout.close()
    if not out.exists():
        subprocess.run(command, env=environment, check=True, timeout=120)
    assert kills
    assert out.read_bytes() == (tmp_path / "whole.h5").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "chunks", "s.h5", "s.json", "whole.h5", "whole.json",
    ]  # fmt: skip
