"""What `lit-pwm runs prune` deletes, and what it never touches; the checkpoints are real runs'."""

import contextlib
import fcntl
import json
import os
import shutil
import socket
import subprocess
import sys
import time

import pytest
import torch

from lit_pwm.cli.main import run
from lit_pwm.cli.runs import size

LONG_AGO = 1_000_000_000.0


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of six updates that saved each, its three best and its last; long ago."""
    from support import ROOT

    root = tmp_path_factory.mktemp("trained") / "run"
    kinds = [
        {"monitor": "val/loss", "save_top_k": 3, "filename": "best-{step}"},
        {"every_n_train_steps": 1, "save_top_k": -1, "filename": "at-{step}"},
    ]
    checkpointing = "lightning.pytorch.callbacks.ModelCheckpoint"
    own = [{"class_path": checkpointing, "init_args": kind | {"auto_insert_metric_name": False}} for kind in kinds]
    argv = ["fit", "--config", "configs/pretrain.yaml", "--config", "configs/world_model/mlp_tiny.yaml"]
    argv += ["--model.latent_dim=16", "--model.encoder_dim=16", "--model.reward_dim=16", "--data.batch_size=4"]
    argv += ["--model.dynamics.hidden_dim=16", "--data.horizon=3", "--trainer.limit_val_batches=1"]
    argv += ["--data.store", ROOT / "tests/fixtures_v1/collected.h5", "--trainer.max_steps=6", "--trainer.devices=1"]
    argv += ["--trainer.val_check_interval=1", "--trainer.accelerator=cpu", f"--trainer.callbacks={json.dumps(own)}"]
    assert run([*map(str, argv), "--trainer.default_root_dir", str(root)]) == 0
    return root


@pytest.fixture
def folder(trained, tmp_path):
    """A copy of it."""
    shutil.copytree(trained, tmp_path / "runs" / "one")
    aged(tmp_path / "runs")
    return tmp_path / "runs"


def aged(folder):
    for path in [folder, *folder.rglob("*")]:
        os.utime(path, (LONG_AGO, LONG_AGO))


def names(folder):
    return sorted(path.name for path in folder.rglob("*.ckpt"))


def version(folder):
    return folder / "one" / "lightning_logs" / "version_0"


def prune(capsys, folder, *options):
    capsys.readouterr()
    code = run(["runs", "prune", str(folder), *map(str, options)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def state_of_best(folder):
    content = torch.load(version(folder) / "checkpoints" / "last.ckpt", weights_only=True)
    (state,) = [state for key, state in content["callbacks"].items() if "val/loss" in key]
    scores = {os.path.basename(path): float(score) for path, score in state["best_k_models"].items()}
    return sorted(scores, key=lambda name: scores[name])


def test_a_dry_run_lists_what_would_go_and_touches_nothing(folder, capsys):
    before = {path: (path.stat().st_size, path.stat().st_mtime_ns) for path in folder.rglob("*")}
    code, said, _ = prune(capsys, folder, "--dry-run")
    assert code == 0
    assert {path: (path.stat().st_size, path.stat().st_mtime_ns) for path in folder.rglob("*")} == before
    spare = [path for path in before if path.name.startswith("at-") and path.name != "at-6.ckpt"]
    assert said.count("would delete: ") == len(spare) == 5
    assert all(f"would delete: {path} (" in said for path in spare)
    freed = sum(before[path][0] for path in spare)
    assert f"would free {freed / 1000:.1f} kB" in said or f"would free {freed / 1e6:.1f} MB" in said


def test_what_is_listed_is_deleted_and_best_and_last_are_kept(folder, capsys):
    best = state_of_best(folder)
    assert len(best) == 3
    assert prune(capsys, folder)[0] == 0
    assert set(best) | {"last.ckpt"} <= set(names(folder))
    assert not [name for name in names(folder) if name.startswith("at-") and name != "at-6.ckpt"]
    assert prune(capsys, folder)[1].startswith("0 files")


@contextlib.contextmanager
def unchangeable(folder):
    """Nothing in it can be deleted, by root neither."""
    folder.chmod(0o555)
    made = os.geteuid() != 0 or subprocess.run(["chattr", "+i", folder], check=False).returncode == 0
    try:
        if not made:
            pytest.skip("root deletes files here in any folder")
        yield
    finally:
        subprocess.run(["chattr", "-i", folder], check=False, stderr=subprocess.DEVNULL)
        folder.chmod(0o755)


def test_a_file_that_cannot_be_deleted_keeps_no_other(folder, capsys):
    """And what was deleted is told; names of folders steer no terminal."""
    shutil.copytree(folder / "one", folder / "an\nother")
    aged(folder)
    with unchangeable(version(folder) / "checkpoints"):
        assert run(["runs", "prune", str(folder)]) == 2
    said = capsys.readouterr()
    kept = names(folder / "one")
    assert len(kept) > len(names(folder / "an\nother"))
    assert "Operation not permitted" in said.err or "Permission denied" in said.err
    deleted = [line for line in said.out.splitlines() if line.startswith("deleted: ")]
    assert len(deleted) == len(kept) - len(names(folder / "an\nother"))
    assert all("an\\nother" in line for line in deleted)
    assert run(["runs", "prune", str(folder)]) == 0
    assert names(folder / "one") == names(folder / "an\nother")


def test_files_of_other_formats_go_with_the_checkpoint_beside_which_they_lie(folder, capsys):
    place = version(folder) / "checkpoints"
    for stem in ("at-1", "at-2", "last", "alone"):
        (place / f"{stem}.tdmpc2.pt").write_bytes(b"12")
    (place / "at-1.mine.pt").write_bytes(b"12")
    aged(folder)
    code, said, _ = prune(capsys, folder, "--dry-run")
    assert code == 0
    assert f"would delete: {place / 'at-1.tdmpc2.pt'} (" in said
    assert prune(capsys, folder)[0] == 0
    assert sorted(path.name for path in place.glob("*.pt")) == ["alone.tdmpc2.pt", "at-1.mine.pt", "last.tdmpc2.pt"]


def test_of_the_best_so_many_are_kept(folder, capsys):
    first, *others = state_of_best(folder)
    prune(capsys, folder, "--best", 1)
    assert first in names(folder)
    assert not set(others) & set(names(folder))
    assert "last.ckpt" in names(folder)


@pytest.mark.parametrize(
    ("options", "kept"), [(["--every", 2], {2, 4}), (["--newest", 2], {4, 5}), (["--every", 3, "--newest", 1], {3, 5})]
)
def test_a_policy_keeps_more(folder, capsys, options, kept):
    prune(capsys, folder, *options)
    left = {int(name[3:-5]) for name in names(folder) if name.startswith("at-")}
    assert left - {6} == kept


def test_no_more_is_deleted_than_a_budget_takes(folder, capsys):
    total = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    one = (version(folder) / "checkpoints" / "at-1.ckpt").stat().st_size
    code, _, _ = prune(capsys, folder, "--budget", total - one - 1)
    assert code == 0
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) <= total - one - 1
    assert "at-1.ckpt" not in names(folder)  # the oldest go first
    assert {"at-4.ckpt", "at-5.ckpt"} <= set(names(folder))
    code, _, errors = prune(capsys, folder, "--budget", "1kB")
    assert code == 1
    assert "more than the budget of 1.0 kB" in errors
    assert {*state_of_best(folder), "last.ckpt"} <= set(names(folder))


def held(path):
    file = path.open("w")
    fcntl.flock(file, fcntl.LOCK_EX)
    return file


def alive(folder, **record):
    (version(folder) / "run.json").write_text(json.dumps(record))
    os.utime(version(folder) / "run.json", (LONG_AGO, LONG_AGO))


def iso(seconds):
    return time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime(seconds))


@pytest.mark.parametrize(
    ("sign", "is_running"),
    [
        (lambda folder: alive(folder, heartbeat=time.time() - 30), True),
        (lambda folder: alive(folder, heartbeat=iso(time.time() - 30)), True),
        (lambda folder: alive(folder, heartbeat=time.time() - 3000), False),
        (lambda folder: alive(folder, heartbeat=iso(time.time() - 30), end=iso(time.time())), False),
        (lambda folder: (version(folder) / "metrics.csv").touch(), True),
        (lambda folder: os.utime(version(folder) / "metrics.csv", (time.time() - 590,) * 2), True),
        (lambda folder: os.utime(version(folder) / "metrics.csv", (time.time() - 610,) * 2), False),
        (lambda folder: held(version(folder) / ".run.lock"), True),
        (lambda folder: held(folder / ".lock"), True),
        (lambda folder: (version(folder) / ".run.lock").write_text("elsewhere 7\n"), True),
        (lambda folder: (version(folder) / ".run.lock").write_text(f"{socket.gethostname()} 7\n"), False),
    ],
)
def test_a_run_in_progress_is_left_alone(folder, capsys, sign, is_running):
    kept = sign(folder)
    lock = version(folder) / ".run.lock"
    if lock.exists():
        os.utime(lock, (LONG_AGO, LONG_AGO))
    shutil.copytree(folder / "one", folder / "two", ignore=shutil.ignore_patterns(".run.lock", "run.json"))
    aged(folder / "two")
    _, said, _ = prune(capsys, folder, "--best", 1)
    assert ("left alone: " in said) == is_running
    if hasattr(kept, "close"):
        kept.close()
    held_above = hasattr(kept, "name") and kept.name == str(folder / ".lock")
    assert ("at-1.ckpt" in names(folder / "one")) == is_running
    assert ("at-1.ckpt" in names(folder / "two")) == held_above


def test_a_heartbeat_counts_before_young_files(folder, capsys):
    alive(folder, heartbeat=time.time() - 3000)
    (version(folder) / "metrics.csv").touch()
    assert "left alone" not in prune(capsys, folder)[1]


def test_a_run_that_is_training_holds_its_lock(trained, tmp_path, capsys):
    """A real one, whose files are made to look old."""
    script = f"""
import os, sys, time
from lightning.pytorch import Callback
import lit_pwm.cli.trainer
from lit_pwm.cli.main import run

class Wait(Callback):
    def on_train_batch_end(self, trainer, *arguments):
        open({str(tmp_path / "reached")!r}, "w").close()
        time.sleep(60)

import callbacks
callbacks.Wait = Wait
sys.exit(run(sys.argv[1:]))
"""
    from support import ROOT, environment_of_programs

    argv = ["fit", "--config", "configs/pretrain.yaml", "--config", "configs/world_model/mlp_tiny.yaml"]
    argv += ["--model.latent_dim=16", "--model.encoder_dim=16", "--model.reward_dim=16", "--data.batch_size=4"]
    argv += ["--data.horizon=3", "--data.store", str(ROOT / "tests/fixtures_v1/collected.h5"), "--trainer.devices=1"]
    argv += ["--trainer.accelerator=cpu", "--trainer.callbacks=[{class_path: callbacks.Wait}]"]
    root = tmp_path / "runs"
    process = subprocess.Popen(
        [sys.executable, "-c", script, *argv, "--trainer.default_root_dir", str(root / "one")],
        env=environment_of_programs(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        while not (tmp_path / "reached").exists():
            assert process.poll() is None
            time.sleep(0.05)
        shutil.copytree(next(trained.rglob("checkpoints")), version(root) / "checkpoints", dirs_exist_ok=True)
        aged(root)
        assert "is in progress (its lock .run.lock)" in prune(capsys, root)[1]
        assert "at-1.ckpt" in names(root)
    finally:
        process.kill()
        process.wait()
    assert (version(root) / ".run.lock").exists()
    aged(root)
    assert "left alone" not in prune(capsys, root)[1]
    assert "at-1.ckpt" not in names(root)


def test_a_run_that_has_ended_leaves_no_lock(trained):
    assert not list(trained.rglob("*.lock"))


def test_unfinished_files_go_and_foreign_damaged_and_linked_ones_stay(folder, capsys):
    place = version(folder) / "checkpoints"
    (place / ".last.ckpt.host.7.part").write_bytes(bytes(1000))
    (place / "half.ckpt").write_bytes((place / "at-1.ckpt").read_bytes()[:3000])
    torch.save({"model": {}, "global_step": 1}, place / "foreign.ckpt")
    shutil.move(place / "at-2.ckpt", folder.parent / "outside.ckpt")
    (place / "linked.ckpt").symlink_to(folder.parent / "outside.ckpt")
    aged(folder)
    os.utime(place / "linked.ckpt", (LONG_AGO, LONG_AGO), follow_symlinks=False)
    _, said, _ = prune(capsys, folder)
    assert "left unfinished by a killed process" in said
    assert not list(place.glob(".*"))
    assert {"half.ckpt", "foreign.ckpt", "linked.ckpt"} <= set(names(folder))
    assert (folder.parent / "outside.ckpt").exists()


def test_the_model_that_a_policy_refers_to_stays(folder, capsys):
    place = version(folder) / "checkpoints"
    content = torch.load(place / "at-5.ckpt", weights_only=True)
    content["lit_pwm"]["world_model_reference"] = {"fingerprint": "x", "file": str(place / "at-3.ckpt")}
    (folder / "policy").mkdir()
    torch.save(content, folder / "policy" / "last.ckpt")
    aged(folder)
    prune(capsys, folder)
    assert "at-3.ckpt" in names(folder)
    assert "at-4.ckpt" not in names(folder)


@pytest.mark.parametrize(("text", "bytes_"), [("20GB", 20 * 10**9), ("1.5 MiB", 3 * 2**19), ("7", 7), ("2k", 2000)])
def test_sizes_are_written_with_units(text, bytes_):
    assert size(text) == bytes_


@pytest.mark.parametrize("options", [["--budget", "much"], ["--best", "0"], ["--every", "0"], ["--newest", "-1"]])
def test_what_is_no_policy_is_refused(folder, capsys, options):
    before = names(folder)
    assert prune(capsys, folder, *options)[0] == 2
    assert prune(capsys, folder / "nowhere")[0] == 2
    assert names(folder) == before
