"""A sweep that is stopped or killed leaves no process and no half-finished cell, and goes on where it was."""

from __future__ import annotations

import json
import signal
import time

import pytest
import torch
import yaml

CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}
OPTIONS = [
    "--model.latent_dim", "16", "--model.encoder_dim", "16", "--model.reward_dim", "16",
    "--model.dynamics.hidden_dim", "16", "--data.batch_size", "8", "--data.horizon", "4",
    "--trainer.accelerator", "cpu", "--trainer.limit_val_batches", "1", "--trainer.max_steps", "300",
    "--trainer.val_check_interval", "100",
]  # fmt: skip


@pytest.fixture
def sweeping(tmp_path, store):
    """The command line of a sweep of two short pre-trainings, and its folder."""
    fit = ["fit", "--config", "configs/pretrain.yaml", "--config", "configs/world_model/mlp_tiny.yaml", *OPTIONS]
    fit += ["--data.store", "{store}", "--seed_everything", "{seed}", "--trainer.default_root_dir", "{folder}"]
    stages = {"pretrain": {"over": ["seed"], "run": fit}}
    sweep = {"name": "small", "axes": {"seed": [0, 1]}, "variables": {"store": "none.h5"}, "stages": stages}
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(sweep))
    out = tmp_path / "swept"
    return ["sweep", tmp_path / "small.yaml", "--out", out, "--workers", "2", "--set", f"store={store}"], out


def wait_for_a_checkpoint(running, out):
    end = time.monotonic() + 180
    while not list(out.rglob("last.ckpt")):
        assert running.process.poll() is None, running.stdout + running.stderr
        assert time.monotonic() < end
        time.sleep(0.05)


def cells_with_a_checkpoint(out):
    return {path.parents[3] for path in out.rglob("last.ckpt")}


def assert_finished(out, went_on):
    cells = [json.loads(path.read_text()) for path in out.rglob("cell.json")]
    assert len(cells) == 2
    steps = [torch.load(path, weights_only=True)["global_step"] for path in out.rglob("last.ckpt")]
    assert steps.count(300) == 2
    # Cells that were cut off went on: each finished as one run, its commands one more option longer.
    assert any(cell["command"][-2:] == ["--ckpt_path", "auto"] for cell in cells)
    for cell in went_on:
        assert {path.parent.name for path in cell.rglob("metrics.csv")} == {"version_0"}


@pytest.mark.faults
@pytest.mark.parametrize("number", CODES)
def test_a_sweep_stops_and_goes_on(number, tmp_path, start, sweeping, whole):
    argv, out = sweeping
    running = start(argv, tmp_path)
    wait_for_a_checkpoint(running, out)
    running.signal(number, group=number == signal.SIGINT)
    assert running.finish(within=60) == CODES[number], running.stderr
    assert time.monotonic() - running.asked < 15
    assert "Traceback" not in running.stderr + running.stdout
    whole(out)
    begun = cells_with_a_checkpoint(out)
    again = start(argv, tmp_path)
    assert again.finish(within=180) == 0, again.stdout + again.stderr
    assert_finished(out, begun)


@pytest.mark.faults
def test_a_sweep_whose_launcher_is_killed_goes_on(tmp_path, start, sweeping, whole):
    argv, out = sweeping
    running = start(argv, tmp_path)
    wait_for_a_checkpoint(running, out)
    running.signal(signal.SIGKILL)
    running.process.wait()
    end = time.monotonic() + 30
    while running.processes():
        assert time.monotonic() < end, "cells go on without their launcher"
        time.sleep(0.1)
    whole(out, killed=True)
    begun = cells_with_a_checkpoint(out)  # one that was killed before its first starts anew
    again = start(argv, tmp_path)
    assert again.finish(within=180) == 0, again.stdout + again.stderr
    assert_finished(out, begun)
