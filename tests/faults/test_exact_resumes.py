"""A run that is stopped in any way goes on as if it had not been: every bit of its state, and every row of its log."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
from checkpoint_states import differences, last_checkpoint
from lightning.fabric.plugins.environments.lightning import find_free_network_port

pytestmark = pytest.mark.faults
UPDATES, EVALUATE, STOPPED = 7, 3, 5
TWO = ["--trainer.devices", "2", "--trainer.strategy", "ddp"]
CODES = {signal.SIGTERM: 143, signal.SIGINT: 130, signal.SIGKILL: -signal.SIGKILL, signal.SIGUSR1: 0}
CASES = [
    ("pretraining", 1, 0, signal.SIGKILL),
    ("pretraining", 1, 2, signal.SIGTERM),
    ("pretraining", 2, 0, signal.SIGUSR1),
    ("pretraining", 2, 2, signal.SIGKILL),
    ("pretraining", 2, 2, signal.SIGINT),
    ("policy", 1, 0, signal.SIGUSR1),
    ("policy", 1, 2, signal.SIGKILL),
    ("policy", 2, 0, signal.SIGKILL),
    ("policy", 2, 0, signal.SIGINT),
    ("policy", 2, 2, signal.SIGTERM),
]
CASES += [
    ("finetuning", 1, 0, signal.SIGKILL),
    ("finetuning", 1, 2, signal.SIGTERM),
    ("finetuning", 2, 0, signal.SIGUSR1),
    ("finetuning", 2, 2, signal.SIGKILL),
    ("finetuning", 2, 2, signal.SIGINT),
]
OLD = Path(__file__).parents[1] / "fixtures_v1"


def slurm(rank, ranks, port, bin_folder):
    """What a task of a SLURM job finds in its environment, and a `scontrol` before the machine's."""
    return {
        "PATH": f"{bin_folder}:{os.environ['PATH']}", "SLURM_JOB_ID": "77", "SLURM_NTASKS": str(ranks),
        "SLURM_NTASKS_PER_NODE": str(ranks), "SLURM_JOB_NAME": "train", "SLURM_PROCID": str(rank),
        "SLURM_LOCALID": str(rank), "SLURM_NODEID": "0", "SLURM_NODELIST": "localhost", "SLURM_NNODES": "1",
        "MASTER_PORT": str(port), "MASTER_ADDR": "127.0.0.1",
    }  # fmt: skip


@pytest.fixture(scope="session")
def command(pretraining, store):
    """The command line of a kind of run, which uses the global generators too."""

    def argv(kind, root, ranks, workers, reached):
        linger = {"phase": "before_backward", "updates": STOPPED, "file": str(reached), "seconds": 2.5}
        own = [{"class_path": "draws.Draws"}, {"class_path": "phases.Linger", "init_args": linger}]
        common = ["--data.num_workers", workers, "--trainer.callbacks+", json.dumps(own[0])]
        common += ["--trainer.callbacks+", json.dumps(own[1]), *(TWO if ranks == 2 else [])]
        if kind == "pretraining":
            return [*pretraining(root, UPDATES, EVALUATE), *common]
        config = "policy_learning_offline"
        if kind == "finetuning":  # one part from the beginning, one opened where the run is stopped
            config, opened = "finetune", {"encoder": {"warmup_steps": 3}, "reward": {"update": 5, "warmup_steps": 3}}
            schedule = {"class_path": "callbacks.FinetuneSchedule", "init_args": {"parts": opened}}
            best = {"class_path": "lightning.pytorch.callbacks.ModelCheckpoint"}
            best |= {"init_args": {"monitor": "val/imagined_reward", "mode": "max"}}
            common += ["--data.second.batch_size", 8, "--data.second.horizon", 3]
            common = ["--trainer.callbacks", json.dumps([schedule, best]), *common]
        return [
            "fit", "--config", f"configs/{config}.yaml", "--config", "configs/policy/mlp_tiny.yaml",
            "--data.batch_size", "8", "--data.horizon", "4", "--trainer.limit_val_batches", "1",
            "--trainer.devices", "1", "--trainer.accelerator", "cpu",
            "--trainer.max_steps", UPDATES, "--trainer.val_check_interval", EVALUATE,
            "--data.store", store, "--data.tasks", "[cartpole-swingup]", "--model.world_model_checkpoint",
            OLD / "mlp.ckpt", "--model.horizon", "4", "--trainer.default_root_dir", root,
            "--trainer.log_every_n_steps", "1", *common,
        ]  # fmt: skip

    return argv


@pytest.fixture
def undisturbed(shared, command, start, here):
    """The folder of the run of a kind that nothing stops, made once: of any workers, which change no number."""

    def run(kind, ranks):
        def fill(folder):
            (folder / "reached").touch()  # it lingers nowhere
            argv = command(kind, folder / "run", ranks, 0, folder / "reached")
            if ranks == 1:
                here(argv, folder)
            else:
                done = start(argv, folder)
                assert done.finish() == 0, done.stderr[-3000:]

        return shared(f"undisturbed-{kind}{ranks}", fill) / "run"

    return run


@pytest.mark.parametrize(("kind", "ranks", "workers", "signum"), CASES)
def test_the_resumed_run_is_the_undisturbed_one(
    kind, ranks, workers, signum, tmp_path, start, here, command, undisturbed, capfd
):
    whole, reached = undisturbed(kind, ranks), tmp_path / "reached"
    by_slurm, port = signum == signal.SIGUSR1, find_free_network_port()
    (tmp_path / "bin").mkdir()
    scontrol = tmp_path / "bin" / "scontrol"
    scontrol.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/calls\n')
    scontrol.chmod(0o755)
    argv = [*command(kind, tmp_path / "run", ranks, workers, reached), *([] if by_slurm else ["--ckpt_path", "auto"])]

    def begin(restarted):
        if not by_slurm:
            return [start(argv, tmp_path)]
        again = {"SLURM_RESTART_COUNT": "1"} if restarted else {}
        tasks = [slurm(rank, ranks, port + restarted, tmp_path / "bin") | again for rank in range(ranks)]
        return [start(argv, tmp_path, **task) for task in tasks]

    running = begin(False)
    assert int(running[0].wait_for(reached)) == STOPPED
    for one in running:
        one.signal(signum, group=signum in (signal.SIGKILL, signal.SIGINT))
    assert [one.process.wait(60) for one in running] == [CODES[signum]] * len(running), running[0].stderr[-3000:]
    saved = last_checkpoint(tmp_path / "run")["global_step"]
    assert saved == (EVALUATE if signum == signal.SIGKILL else STOPPED + 1)
    capfd.readouterr()
    if by_slurm or ranks == 2:
        again = begin(True)
        assert [one.process.wait(120) for one in again] == [0] * len(again), again[0].stderr[-3000:]
        said = again[0].stderr
    else:
        here(argv, tmp_path)
        said = capfd.readouterr().err
    assert f"at update {saved}" in said
    assert last_checkpoint(tmp_path / "run")["global_step"] == UPDATES
    assert differences(tmp_path / "run", whole) == []
    if by_slurm:
        assert (tmp_path / "calls").read_text() == "requeue 77\n"
