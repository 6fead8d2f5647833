"""A small store, and a sweep file that can be written and run through the real command line."""

import numpy as np
import pytest
import yaml

# Lightning's log handler keeps the stderr it finds when it is imported: let that be pytest's own and not a test's.
import lit_pwm.cli.trainer  # noqa: F401
from datamodules import EpisodeWriter
from lit_pwm.cli.main import run


@pytest.fixture(scope="session")
def small_store(tmp_path_factory):
    path = tmp_path_factory.mktemp("store") / "small.h5"
    rng = np.random.default_rng(0)
    with EpisodeWriter(path, tasks={"cartpole-balance": (5, 1)}) as writer:
        for _ in range(4):
            action = rng.uniform(-1, 1, (60, 1)).astype(np.float32)
            obs = rng.standard_normal((61, 5)).astype(np.float32)
            writer.append(
                task="cartpole-balance",
                obs=obs,
                action=action,
                reward=np.abs(action[:, 0]),
                terminated=False,
                source="x",
            )
    return path


@pytest.fixture
def sweeping(tmp_path, capsys, monkeypatch):
    """Runs a sweep, given as plain values, in a folder of its own; returns its exit code and what it printed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")

    def sweep(plan, *options):
        (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(plan, sort_keys=False))
        capsys.readouterr()
        code = run(["sweep", "sweep.yaml", "--out", "out", "--workers", "2", *options])
        printed = capsys.readouterr()
        return code, " ".join((printed.out + printed.err).split())

    return sweep
