"""Files that are not what they are given for: one paragraph, exit code 2, nothing run and nothing left behind."""

from __future__ import annotations

import json
import os
import pickle
import resource
from pathlib import Path

import numpy as np
import pytest
import torch

from lit_pwm.cli.main import run

OLD = Path(__file__).parents[1] / "fixtures_v1"
SHORT = ["--data.horizon", "4", "--data.batch_size", "8", "--trainer.max_steps", "1", "--trainer.accelerator", "cpu"]
PRETRAIN = ["fit", "--config", "configs/pretrain.yaml", "--config", "configs/world_model/mlp_tiny.yaml", *SHORT]
POLICY = ["fit", "--config", "configs/policy_learning.yaml", "--config", "configs/policy/mlp_tiny.yaml", *SHORT]
STORE = ["--data.store", str(OLD / "collected.h5")]

# Entrance → (kind of file that it takes, its command line with FILE in the file's place).
ENTRANCES = {
    "evaluate": ("checkpoint", ["evaluate", "--checkpoint", "FILE"]),
    "inspect": ("checkpoint", ["checkpoint", "inspect", "FILE"]),
    "convert": ("checkpoint", ["checkpoint", "convert", "FILE", "--to", "native", "--out", "new.ckpt"]),
    "resume": ("checkpoint", [*PRETRAIN, *STORE, "--ckpt_path", "FILE"]),
    "validate": ("checkpoint", ["validate", *PRETRAIN[1:5], *STORE, "--ckpt_path", "FILE"]),
    "test": ("checkpoint", ["test", *PRETRAIN[1:5], *STORE, "--ckpt_path", "FILE"]),
    "world_model": ("checkpoint", [*POLICY, *STORE, "--model.world_model_checkpoint", "FILE"]),
    "initial": ("checkpoint", [*PRETRAIN, *STORE, "--model.initial_checkpoint", "FILE"]),
    "initial_policy": (
        "checkpoint",
        [
            *POLICY,
            *STORE,
            "--model.world_model_checkpoint",
            str(OLD / "mlp.ckpt"),
            "--model.initial_policy_checkpoint",
            "FILE",
        ],
    ),
    "behaviour": (
        "checkpoint",
        [
            "collect",
            "--tasks",
            "cartpole-swingup",
            "--episodes",
            "1",
            "--workers",
            "1",
            "--out",
            "new.h5",
            "--behaviour",
            "FILE",
        ],
    ),
    "info": ("store", ["data", "info", "FILE"]),
    "check": ("store", ["data", "check", "FILE"]),
    "data": ("store", [*PRETRAIN, "--data.store", "FILE"]),
    "second_data": ("store", [*PRETRAIN, "--data.store", str(OLD / "made.h5"), "--data.store+", "FILE"]),
    "config": ("config", [*PRETRAIN, *STORE, "--config", "FILE"]),
    "sweep": ("sweep", ["sweep", "FILE", "--dry-run"]),
    "record": ("record", ["report", "FOLDER", "--out", "report"]),
    "sweep_record": ("sweep record", ["report", "FOLDER", "--out", "report"]),
}
NAMES = {
    "checkpoint": "last.ckpt",
    "store": "episodes.h5",
    "config": "mine.yaml",
    "sweep": "mine.yaml",
    "record": "record.json",
    "sweep record": "a.record.json",
}


class Executes:
    """A pickle that leaves a trace when it is read."""

    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        return os.system, (f"touch {self.trace}",)


def whole_file(kind) -> bytes:
    if kind == "checkpoint":
        return (OLD / "mlp_policy.ckpt").read_bytes()
    if kind == "store":
        return (OLD / "collected.h5").read_bytes()
    if kind in ("config", "sweep"):
        return b"model:\n  init_args: {lr: 0.1}\n" + b"#" * 100
    return json.dumps({"kind": "demo", "format": 1, "tasks": []}).encode()


def truncated(path, kind):
    whole = whole_file(kind)
    path.write_bytes(whole[: len(whole) // 2] if kind != "config" else b"model: {init_args: {lr: ")


def pickled(path, kind):
    path.write_bytes(pickle.dumps(Executes(path.with_name("executed"))))


def pickled_by_torch(path, kind):
    torch.save({"state_dict": {}, "lit_pwm": Executes(path.with_name("executed"))}, path)


def yaml_that_executes(path, kind):
    path.write_text(f"model: !!python/object/apply:os.system ['touch {path.with_name('executed')}']\n")


def of_another_kind(path, kind):
    path.write_bytes((OLD / ("collected.h5" if kind == "checkpoint" else "mlp.ckpt")).read_bytes())


KINDS = {
    "missing": lambda path, kind: None,
    "empty": lambda path, kind: path.write_bytes(b""),
    "truncated": truncated,
    "random": lambda path, kind: path.write_bytes(np.random.default_rng(0).bytes(5000)),
    "zeros": lambda path, kind: path.write_bytes(bytes(5000)),
    "text": lambda path, kind: path.write_text("the quick brown fox"),
    "list": lambda path, kind: path.write_text("[1, 2, {}]"),
    "number": lambda path, kind: path.write_text("3"),
    "null": lambda path, kind: path.write_text("null"),
    "nested": lambda path, kind: path.write_text("[" * 5000 + "]" * 5000),
    "surrogates": lambda path, kind: path.write_text('{"\\ud800": "\\udfff", "kind": {"a": []}}'),
    "wrong_values": lambda path, kind: path.write_text('{"kind": "demo", "format": 1, "model": 3, "stages": [1]}'),
    "another_kind": of_another_kind,
    "folder": lambda path, kind: path.mkdir(),
    "fifo": lambda path, kind: os.mkfifo(path),
    "dangling": lambda path, kind: path.symlink_to("nowhere"),
    "loop": lambda path, kind: path.symlink_to(path.name),
    "device": lambda path, kind: path.symlink_to("/dev/zero"),
    "passwd": lambda path, kind: path.symlink_to("/etc/passwd"),
    "pickle": pickled,
    "torch_pickle": pickled_by_torch,
    "yaml_code": yaml_that_executes,
}
FAST_ENTRANCES = ("evaluate", "info", "config", "sweep", "record")
FAST_KINDS = ("truncated", "random", "fifo", "torch_pickle", "yaml_code", "list")


def is_fast(entrance, kind):
    return entrance in FAST_ENTRANCES and kind in FAST_KINDS


matrix = [
    pytest.param(entrance, kind, id=f"{entrance}-{kind}", marks=() if is_fast(entrance, kind) else pytest.mark.faults)
    for entrance in ENTRANCES
    for kind in KINDS
]


@pytest.fixture(autouse=True)
def little_memory():
    """Files without an end are not read until the machine's memory is: at most 1 GB more than there is."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + 2**30, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.mark.timeout(30)
@pytest.mark.parametrize(("entrance", "kind"), matrix)
def test_hostile_files_are_refused(entrance, kind, tmp_path, monkeypatch, capfd, refused):
    given, work = tmp_path / "given", tmp_path / "work"
    given.mkdir()
    work.mkdir()
    monkeypatch.chdir(work)
    takes, line = ENTRANCES[entrance]
    path = given / NAMES[takes]
    KINDS[kind](path, takes)
    code = run([str(path) if part == "FILE" else str(given) if part == "FOLDER" else part for part in line])
    _, err = capfd.readouterr()
    assert not (given / "executed").exists(), "code from the file was run"
    refused(code, err)
    assert entrance == "config" or "root:" not in err, "another file's content is shown"
    assert not list(work.rglob("*")), f"left behind: {list(work.rglob('*'))}"


# -- files that are found, not given -----------------------------------------------------------------------------------
@pytest.mark.faults
@pytest.mark.timeout(60)
@pytest.mark.parametrize("kind", KINDS)
def test_hostile_checkpoints_of_a_run_are_passed_over(kind, tmp_path, monkeypatch, capfd):
    """`--ckpt_path auto` looks at all that lies where checkpoints do, and starts anew."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "run/lightning_logs/version_0/checkpoints"
    folder.mkdir(parents=True)
    KINDS[kind](folder / "last.ckpt", "checkpoint")
    if kind == "another_kind":
        (folder / "last.ckpt").write_bytes((OLD / "mlp_policy.ckpt").read_bytes())
    root = ["--trainer.default_root_dir", str(tmp_path / "run"), "--trainer.val_check_interval", "1"]
    code = run([*PRETRAIN, *STORE, "--model.latent_dim", "16", *root, "--ckpt_path", "auto"])
    _, err = capfd.readouterr()
    assert not (folder / "executed").exists(), "code from the file was run"
    assert code == 0, err
    made = [path for path in (tmp_path / "run").rglob("last.ckpt") if path.parent != folder]
    assert [torch.load(path, weights_only=True)["global_step"] for path in made] == [1]


@pytest.mark.faults
@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", ["settings.json", "0.shard"])
@pytest.mark.parametrize("kind", KINDS)
def test_hostile_shards_are_refused_or_passed_over(kind, name, tmp_path, monkeypatch, capfd, refused, whole):
    """What an interrupted collection left is taken up by the next one."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "new.h5.shards"
    folder.mkdir()
    KINDS[kind](folder / name, "store")
    code = run(["collect", "--tasks", "cartpole-balance", "--episodes", "1", "--workers", "1", "--out", "new.h5"])
    _, err = capfd.readouterr()
    assert not (folder / "executed").exists(), "code from the file was run"
    if code == 0:
        whole(tmp_path)
    else:
        refused(code, err, str(folder))
        assert not (tmp_path / "new.h5").exists()


@pytest.mark.faults
@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", ["cell.json", "made_by_lit_pwm.json", "log.txt"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_cell_whose_files_are_hostile_is_run(kind, name, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    look = {"over": ["n"], "run": ["data", "check", str(OLD / "made.h5")]}
    (tmp_path / "looking.yaml").write_text(json.dumps({"name": "x", "axes": {"n": [1]}, "stages": {"look": look}}))
    folder = tmp_path / "out/look/n=1"
    folder.mkdir(parents=True)
    KINDS[kind](folder / name, "record")
    code = run(["sweep", "looking.yaml", "--out", "out", "--workers", "1"])
    out, err = capfd.readouterr()
    assert not (folder / "executed").exists(), "code from the file was run"
    assert code == 0 or (code == 2 and "Traceback" not in err), out + err
    if code == 0:
        assert json.loads((folder / "cell.json").read_text())["status"] == "finished"
