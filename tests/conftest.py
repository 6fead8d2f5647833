"""Every test runs with one torch thread, and leaves the process as it found it."""

import os
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))  # classes of studies are named as those of `benchmarks`
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MKL_NUM_THREADS", "1")

import pytest


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    import torch

    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def no_leaked_environment():
    """Seeding a run sets PL_GLOBAL_SEED, which would give the next test's datamodule another seed."""
    os.environ.pop("PL_GLOBAL_SEED", None)  # session fixtures that ran a training leave it
    before = dict(os.environ)
    yield
    for key in set(os.environ) - set(before):
        if key.startswith(("PL_", "LIT_PWM_", "MASTER_", "LOCAL_RANK", "NODE_RANK", "WORLD_SIZE")):
            del os.environ[key]
