"""Both modules under `--trainer.strategy ddp --trainer.devices 2`, through the real command line, on the CPU."""

import os
import shutil
import subprocess
import sys

import pytest
import torch
from lightning.fabric.plugins.environments.lightning import find_free_network_port

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


def externally(rank, root, port, store, *argv):
    """One of two processes that a cluster has started, each of which sees a folder of its own as the run's."""
    cluster = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "NODE_RANK": 0, "GROUP_RANK": 0,
               "LOCAL_WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "TORCHELASTIC_RUN_ID": "7",
               "OMP_NUM_THREADS": 1}  # fmt: skip
    command = [sys.executable, "-m", "lit_pwm", "fit", "--config", "configs/pretrain.yaml", "--config",
               "configs/world_model/mlp_tiny.yaml", *DDP, *SHORT, "--data.batch_size", 4, "--data.store", store,
               "--trainer.default_root_dir", root, *argv]  # fmt: skip
    return subprocess.Popen(
        [str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env=os.environ | {name: str(value) for name, value in cluster.items()},
    )  # fmt: skip


def both_end(processes):
    said = [process.communicate(timeout=200)[0] for process in processes]
    return [process.returncode for process in processes], [" ".join(text.split()) for text in said]


@pytest.mark.long
def test_rank_zero_decides_where_ranks_see_other_times_of_files(store, tmp_path):
    """Of two checkpoints of one update, the later file is taken: on the disks of two machines, not the same one."""
    fit("--config", "configs/pretrain.yaml", "--config", "configs/world_model/mlp_tiny.yaml", *DDP, *SHORT,
        "--data.batch_size", 4, "--data.store", store, "--trainer.default_root_dir", tmp_path / "first",
        "--trainer.max_steps", 2, "--trainer.val_check_interval", 2)  # fmt: skip
    (file,) = (tmp_path / "first").rglob("last.ckpt")
    roots = [tmp_path / "zero", tmp_path / "one"]
    for root, newest in zip(roots, "ab", strict=True):
        root.mkdir()
        for name in "ab":
            shutil.copy(file, root / f"{name}.ckpt")
            os.utime(root / f"{name}.ckpt", (1, 2 if name == newest else 1))
    argv = ["--ckpt_path", "auto", "--trainer.max_steps", 4]
    port = find_free_network_port()
    codes, said = both_end([externally(rank, roots[rank], port, store, *argv) for rank in (0, 1)])
    assert codes == [0, 0], said
    assert f"Resuming from {roots[0] / 'a.ckpt'} at update 2" in said[0]
    assert torch.load(next(roots[0].rglob("last.ckpt")), weights_only=True)["global_step"] == 4
    assert not list(roots[1].rglob("last.ckpt"))


@pytest.mark.long
def test_what_rank_zero_refuses_all_ranks_refuse(store, tmp_path):
    port = find_free_network_port()
    roots = [tmp_path / "zero", tmp_path / "one"]
    codes, said = both_end([externally(rank, roots[rank], port, store, "--ckpt_path", "last") for rank in (0, 1)])
    assert codes == [2, 2], said
    assert all(f"under '{roots[0]}' and its version folders, and there is none" in text for text in said), said
