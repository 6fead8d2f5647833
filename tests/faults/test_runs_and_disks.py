"""Real runs of the real command on disks that are full, and told to stop while they evaluate."""

import contextlib
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from datamodules import EpisodeWriter

pytestmark = pytest.mark.faults

TASKS = {"cup-catch": (8, 2), "cartpole-swingup": (5, 1)}
SHORT = [
    "--data.horizon", "4", "--data.batch_size", "8", "--data.batches_per_epoch", "30", "--data.val_batches", "2",
    "--data.val_horizon", "4", "--trainer.accelerator", "cpu", "--trainer.enable_model_summary", "false",
]  # fmt: skip
TINY = ["--config", "configs/pretrain.yaml", "--config", "configs/world_model/mlp_tiny.yaml", *SHORT]
TWO = ["--trainer.devices", "2", "--trainer.strategy", "ddp"]
RANKS = pytest.mark.parametrize("ranks", [[], TWO], ids=["alone", "two ranks"])


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    path = tmp_path_factory.mktemp("store") / "two.h5"
    rng = np.random.default_rng(5)
    with EpisodeWriter(path, tasks=TASKS) as writer:
        for _ in range(20):
            for task, (obs_dim, action_dim) in TASKS.items():
                action = rng.uniform(-1, 1, (40, action_dim))
                obs = np.cumsum(rng.standard_normal((41, obs_dim)), 0)
                writer.append(task=task, obs=obs, action=action, reward=-np.square(action).sum(1), source="script")
    return path


STARTED = []


@pytest.fixture(autouse=True)
def none_outlives_its_test():
    """A test that fails leaves a run that would go on for ever."""
    yield
    for process in STARTED:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    STARTED.clear()


def start(root, *argv, preexec_fn=None, **env):
    with Path(f"{root}.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "lit_pwm", "fit", *map(str, argv), "--trainer.default_root_dir", str(root)],
            stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"} | env, preexec_fn=preexec_fn,
        )  # fmt: skip
    STARTED.append(process)
    return process


def ends(process, root, seconds=90):
    try:
        code = process.wait(seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        pytest.fail(f"it hangs\n{said(root)}")
    end = time.monotonic() + 5
    while time.monotonic() < end:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, 0)
            time.sleep(0.1)
            continue
        return code
    os.killpg(process.pid, signal.SIGKILL)
    return pytest.fail(f"processes were left behind\n{said(root)}")


def said(root):
    return " ".join(Path(f"{root}.log").read_text().split())


def waits_for(process, root, words, seconds=240):
    end = time.monotonic() + seconds
    while words not in said(root):
        assert process.poll() is None, said(root)
        assert time.monotonic() < end, said(root)
        time.sleep(0.1)


@RANKS
def test_a_checkpoint_that_cannot_be_written_ends_the_run(tmp_path, store, ranks):
    root = tmp_path / "run"
    few = ["--trainer.max_steps", "40", "--trainer.val_check_interval", "20"]
    process = start(
        root, *TINY, *few, *ranks, "--data.store", store,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, resource.RLIM_INFINITY)),
    )  # fmt: skip
    assert ends(process, root) == 2, said(root)
    assert "could not be written" in said(root)
    assert "File too large" in said(root)
    left = [path for path in root.rglob("*") if path.suffix in (".ckpt", ".part")]
    assert left == []


def test_a_full_disk_keeps_the_last_whole_checkpoint(tmp_path, store):
    disk = tmp_path / "disk"
    disk.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", disk], capture_output=True, check=False)
    if made.returncode:
        pytest.skip("cannot mount a small disk here")
    root = disk / "run"
    try:
        few = ["--trainer.val_check_interval", "10", "--data.store", store, "--trainer.callbacks", "null"]
        assert ends(start(root, *TINY, *few, "--trainer.max_steps", "10"), root) == 0, said(root)
        (last,) = root.rglob("last.ckpt")
        size = last.stat().st_size
        free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
        (disk / "ballast").write_bytes(bytes(free - size // 2))
        go_on = [*few, "--trainer.max_steps", "20", "--ckpt_path", "auto"]
        assert ends(start(root, *TINY, *go_on), root) == 2, said(root)
        assert "No space left on device" in said(root)
        assert str(last.parent) in said(root)
        assert torch.load(last, weights_only=True)["global_step"] == 10
        assert not list(root.rglob("*.part"))
        (disk / "ballast").unlink()
        assert ends(start(root, *TINY, *go_on), root) == 0, said(root)
        assert torch.load(last, weights_only=True)["global_step"] == 20
    finally:
        subprocess.run(["umount", disk], check=True)


@pytest.fixture(scope="module")
def world_model(store, tmp_path_factory):
    root = tmp_path_factory.mktemp("model") / "run"
    few = ["--trainer.max_steps", "10", "--trainer.val_check_interval", "10"]
    assert ends(start(root, *TINY, *few, "--data.store", store), root) == 0, said(root)
    (file,) = root.rglob("last.ckpt")
    return file


@RANKS
@pytest.mark.parametrize("first", ["true", "false"], ids=["before training", "at a validation"])
def test_an_evaluation_is_stopped_within_seconds(tmp_path, store, world_model, ranks, first):
    (tmp_path / "mine.yaml").write_text(
        "trainer:\n  callbacks:\n"
        "    - class_path: callbacks.EnvironmentEvaluation\n"
        f"      init_args: {{episodes: 500, before_training: {first}}}\n"
        "    - class_path: talk.Talk\n"
    )
    (tmp_path / "talk.py").write_text(
        "import sys\nfrom lightning.pytorch import Callback\n"
        "class Talk(Callback):\n"
        "    def on_fit_start(self, *_):\n        print('FITS', file=sys.stderr, flush=True)\n"
        "    def on_validation_start(self, *_):\n        print('VALIDATES', file=sys.stderr, flush=True)\n"
    )
    root = tmp_path / "run"
    argv = ["--config", "configs/policy_learning.yaml", "--config", "configs/policy/mlp_multitask.yaml", *SHORT, *ranks]
    argv += ["--config", tmp_path / "mine.yaml", "--model.world_model_checkpoint", world_model, "--data.store", store]
    argv += ["--trainer.max_steps", "1000", "--trainer.val_check_interval", "3"]
    process = start(root, *argv, PYTHONPATH=f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}")
    waits_for(process, root, "FITS" if first == "true" else "VALIDATES")
    time.sleep(6)
    assert process.poll() is None, said(root)
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    assert ends(process, root, 30) == 143, said(root)
    assert time.monotonic() - began < 10  # five seconds on an idle machine
    assert "Traceback" not in said(root)
    saved = [torch.load(path, weights_only=True)["global_step"] for path in root.rglob("last.ckpt")]
    assert saved == ([] if first == "true" else [3])
