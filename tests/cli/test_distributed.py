"""Both modules under `--trainer.strategy ddp --trainer.devices 2`, through the real command line, on the CPU."""

import os
import subprocess
import sys

import pytest
import torch

DDP = ["--config", "configs/trainer/ddp.yaml", "--trainer.accelerator", "cpu"]
SHORT = ["--data.horizon", "4", "--trainer.limit_val_batches", "1"]
STEPS = ["--trainer.max_steps", "4", "--trainer.val_check_interval", "2"]

pytestmark = pytest.mark.slow


def fit(*argv):
    """Run `lit-pwm fit` in a process of its own, since DDP starts the command line again for its other rank."""
    done = subprocess.run(
        [sys.executable, "-m", "lit_pwm", "fit", *map(str, argv)],
        capture_output=True, text=True, check=False, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def state(root):
    (file,) = root.rglob("last.ckpt")
    checkpoint = torch.load(file, weights_only=True)
    assert checkpoint["global_step"] == 4
    return checkpoint["state_dict"], file


def test_world_model_equals_one_process_with_the_whole_batch(store, tmp_path):
    common = [
        "--config",
        "configs/pretrain.yaml",
        "--config",
        "configs/world_model/mlp_tiny.yaml",
        "--data.store",
        store,
    ]
    common += ["--data.store", store, *SHORT, *STEPS, "--seed_everything", "5"]
    fit(*common, *DDP, "--data.batch_size", "8", "--trainer.default_root_dir", tmp_path / "two")
    fit(*common, "--data.batch_size", "16", "--trainer.default_root_dir", tmp_path / "one")
    (two, _), (one, _) = state(tmp_path / "two"), state(tmp_path / "one")
    for key, value in one.items():
        torch.testing.assert_close(two[key], value, atol=2e-5, rtol=0, msg=key)


def test_policy_trains_and_evaluates(store, world_model, tmp_path):
    argv = ["--config", "configs/policy_learning.yaml", "--config", "configs/policy/mlp_multitask.yaml", *DDP]
    argv += ["--model.world_model_checkpoint", world_model, "--data.store", store, *SHORT, *STEPS]
    fit(*argv, "--data.batch_size", "8", "--trainer.default_root_dir", tmp_path)
    _, file = state(tmp_path)
    header = (file.parent.parent / "metrics.csv").read_text().splitlines()[0]
    # Each rank evaluated its share of the tasks; rank zero logged both.
    assert "eval/return/cartpole-balance" in header
    assert "eval/return/cartpole-swingup" in header
