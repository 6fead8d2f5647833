"""Real runs of the real command, told to stop in each phase, alone and as two ranks."""

import contextlib
import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch

from datamodules import EpisodeWriter

pytestmark = pytest.mark.faults

TINY = ["--config", "configs/pretrain.yaml", "--config", "configs/world_model/mlp_tiny.yaml"]
SHORT = [
    "--data.horizon", "4", "--data.batch_size", "8", "--data.batches_per_epoch", "30", "--data.val_batches", "2",
    "--data.val_horizon", "4", "--trainer.accelerator", "cpu", "--trainer.log_every_n_steps", "3",
]  # fmt: skip
TWO = ["--trainer.devices", "2", "--trainer.strategy", "ddp"]
ENDLESS = ["--trainer.max_steps", "1000000", "--trainer.val_check_interval", "40"]
SLOW = """
import time
from lightning.pytorch import Callback

class Slow(Callback):
    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        time.sleep(20)
"""
CODES = {signal.SIGTERM: 143, signal.SIGHUP: 129, signal.SIGINT: 130}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    path = tmp_path_factory.mktemp("store") / "robot.h5"
    rng = np.random.default_rng(5)
    with EpisodeWriter(path, tasks={"robot": (6, 2)}) as writer:
        for _ in range(40):
            action = rng.uniform(-1, 1, (40, 2))
            obs = np.cumsum(rng.standard_normal((41, 6)), 0)
            writer.append(task="robot", obs=obs, action=action, reward=-np.square(action).sum(1), source="script")
    return path


@pytest.fixture(autouse=True)
def none_outlives_its_test():
    """A test that fails leaves a run that would go on for ever."""
    yield
    for process in Run.started:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    Run.started.clear()


class Run:
    """`lit-pwm fit` in a process group of its own."""

    started: ClassVar[list[subprocess.Popen]] = []

    def __init__(self, root, *argv, **env):
        self.root, self.log = Path(root), Path(root).with_suffix(".log")
        argv = ["fit", *map(str, argv), "--trainer.default_root_dir", str(root)]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "lit_pwm", *argv], start_new_session=True, stdin=subprocess.DEVNULL,
                stdout=log, stderr=subprocess.STDOUT, env=os.environ | {"OMP_NUM_THREADS": "1"} | env,
            )  # fmt: skip
        self.started.append(self.process)

    def wait_for(self, pattern, seconds=120):
        end = time.monotonic() + seconds
        while not list(self.root.glob(pattern)):
            assert self.process.poll() is None, self.text()
            assert time.monotonic() < end, self.text()
            time.sleep(0.05)
        return self

    def text(self):
        return self.log.read_text()

    def end(self, seconds=60):
        """Its exit code; nothing of its group is left."""
        try:
            code = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            pytest.fail(f"it hangs\n{self.text()}")
        end = time.monotonic() + 5
        while left := group(self.process.pid):
            assert time.monotonic() < end, f"left behind: {left}\n{self.text()}"
            time.sleep(0.1)
        return code


def group(leader):
    """Command lines of the running processes of a group."""
    found = []
    for folder in Path("/proc").iterdir():
        try:
            state, _, process_group = (folder / "stat").read_text().rpartition(")")[2].split()[:3]
            if int(process_group) == leader and state != "Z":
                found.append((folder / "cmdline").read_text().replace("\0", " "))
        except (OSError, ValueError):
            pass
    return found


def children(pid):
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if int((folder / "stat").read_text().rpartition(")")[2].split()[1]) == pid:
                found.append(int(folder.name))
        except OSError:
            pass
    return found


def last(root):
    (path,) = Path(root).rglob("last.ckpt")
    assert not list(Path(root).rglob("*.part")), "an unfinished file was left"
    return torch.load(path, weights_only=True)


def training(root):
    return "lightning_logs/version_0/config.yaml"


@pytest.mark.parametrize("ranks", [[], TWO], ids=["alone", "two ranks"])
@pytest.mark.parametrize("signum", list(CODES), ids=lambda signum: signum.name)
def test_the_update_in_flight_is_saved(tmp_path, store, signum, ranks):
    run = Run(tmp_path / "run", *TINY, *SHORT, *ENDLESS, *ranks, "--data.store", store)
    run.wait_for(training(run.root))
    time.sleep(2)
    os.kill(run.process.pid, signum)  # rank zero alone is told
    assert run.end() == CODES[signum], run.text()
    assert last(run.root)["global_step"] > 0
    assert "Traceback" not in run.text()


@pytest.mark.parametrize("ranks", [[], TWO], ids=["alone", "two ranks"])
def test_all_of_a_terminal_is_told(tmp_path, store, ranks):
    run = Run(tmp_path / "run", *TINY, *SHORT, *ENDLESS, *ranks, "--data.store", store, "--data.num_workers", 1)
    run.wait_for(training(run.root))
    time.sleep(2)
    os.killpg(run.process.pid, signal.SIGINT)
    assert run.end() == 130, run.text()
    assert last(run.root)["global_step"] > 0
    assert "Traceback" not in run.text()


def test_another_rank_alone_is_told(tmp_path, store):
    run = Run(tmp_path / "run", *TINY, *SHORT, *ENDLESS, *TWO, "--data.store", store)
    run.wait_for(training(run.root))
    time.sleep(1)
    (other,) = children(run.process.pid)
    os.kill(other, signal.SIGTERM)
    assert run.end() == 143, run.text()
    assert last(run.root)["global_step"] > 0


@pytest.mark.parametrize("ranks", [[], TWO], ids=["alone", "two ranks"])
@pytest.mark.parametrize("seconds", [1.0, 3.0, 5.0, 7.0])
def test_a_run_that_is_starting_ends_too(tmp_path, store, seconds, ranks):
    run = Run(tmp_path / "run", *TINY, *SHORT, *ENDLESS, *ranks, "--data.store", store)
    time.sleep(seconds)
    os.killpg(run.process.pid, signal.SIGTERM)
    assert run.end(40) in (143, -signal.SIGTERM), run.text()
    for path in run.root.rglob("*.ckpt"):
        torch.load(path, weights_only=True)


@pytest.mark.parametrize("ranks", [[], TWO], ids=["alone", "two ranks"])
def test_a_second_signal_ends_it_at_once(tmp_path, store, ranks):
    (tmp_path / "slow.py").write_text(SLOW)
    argv = [*TINY, *SHORT, *ENDLESS, *ranks, "--data.store", store, "--trainer.callbacks+=slow.Slow"]
    run = Run(tmp_path / "run", *argv, PYTHONPATH=f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}")
    run.wait_for(training(run.root))
    time.sleep(2)
    os.kill(run.process.pid, signal.SIGTERM)
    time.sleep(1)
    assert run.process.poll() is None  # it is finishing its update
    os.kill(run.process.pid, signal.SIGTERM)
    began = time.monotonic()
    assert run.end(10) == 143, run.text()
    assert time.monotonic() - began < 6
    for path in run.root.rglob("*.ckpt"):
        torch.load(path, weights_only=True)
    assert not list(run.root.rglob("*.part"))


def test_stopped_again_and_again_it_is_the_undisturbed_run(tmp_path, store):
    argv = [*TINY, *SHORT, "--data.store", store, "--trainer.max_steps", "200", "--trainer.val_check_interval", "20"]
    whole = Run(tmp_path / "whole", *argv)
    assert whole.end(200) == 0, whole.text()
    stops, code = 0, None
    while code != 0:
        run = Run(tmp_path / "run", *argv, "--ckpt_path", "auto")
        if stops < 3:
            run.wait_for(training(run.root))
            time.sleep(1.0 + stops / 3)
            run.process.send_signal(signal.SIGTERM)
        code = run.end(200)
        assert code in (0, 143), run.text()
        stops += 1
        assert stops < 6
    one, other = last(whole.root), last(run.root)
    assert one["global_step"] == other["global_step"] == 200
    for key, value in one["state_dict"].items():
        assert torch.equal(value, other["state_dict"][key]), key
    assert metrics(whole.root) == metrics(run.root)
    assert [path.name for path in (run.root / "lightning_logs").iterdir()] == ["version_0"]


def metrics(root):
    (file,) = Path(root).rglob("metrics.csv")
    with file.open() as lines:
        rows = [{key: value for key, value in row.items() if value} for row in csv.DictReader(lines)]
    return [{key: value for key, value in row.items() if not key.startswith("compute/")} for row in rows]


def test_slurm_requeues_once_and_the_job_goes_on(tmp_path, store):
    (tmp_path / "bin").mkdir()
    scontrol = tmp_path / "bin" / "scontrol"
    # As SLURM does, it ends the processes of the job that it starts again.
    scontrol.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/calls\nsleep 0.5\nkill -TERM $PPID\n')
    scontrol.chmod(0o755)
    slurm = {
        "PATH": f"{tmp_path}/bin:{os.environ['PATH']}", "SLURM_JOB_ID": "77", "SLURM_NTASKS": "1",
        "SLURM_NTASKS_PER_NODE": "1", "SLURM_JOB_NAME": "train", "SLURM_PROCID": "0", "SLURM_LOCALID": "0",
        "SLURM_NODEID": "0", "SLURM_NODELIST": "localhost", "SLURM_NNODES": "1",
    }  # fmt: skip
    argv = [*TINY, *SHORT, "--data.store", store, "--trainer.val_check_interval", "40", "--trainer.devices", 1]
    run = Run(tmp_path / "run", *argv, "--trainer.max_steps", "1000000", **slurm)
    run.wait_for(training(run.root))
    time.sleep(1.5)
    run.process.send_signal(signal.SIGUSR1)
    assert run.end() == 0, run.text()
    assert (tmp_path / "calls").read_text() == "requeue 77\n"
    reached = last(run.root)["global_step"]
    assert reached > 0
    again = Run(
        tmp_path / "run", *argv, "--trainer.max_steps", reached + 3, **slurm, SLURM_RESTART_COUNT="1"
    )  # without an option
    assert again.end() == 0, again.text()
    assert f"at update {reached}" in again.text()
    assert last(run.root)["global_step"] == reached + 3
