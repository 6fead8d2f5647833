"""A process that is killed at any change it makes to a file leaves whole files, and goes on when it is run again."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from datamodules import EpisodeStore

OLD = Path(__file__).parents[1] / "fixtures_v1"
HOOKS = Path(__file__).parent / "hooks"


def changes(log: Path) -> list[str]:
    """What a process changed, in order, as `EVENT PATH`."""
    return [line.split(" ", 1)[1] for line in log.read_text().splitlines()] if log.exists() else []


@pytest.fixture
def killed(tmp_path, start):
    """Runs a command line until it is killed at its n-th change below a folder; its exit code."""

    def run(argv, root, number, event=None):
        fault = {"root": str(root), "log": str(tmp_path / f"log{number}"), "kill": number}
        running = start(argv, tmp_path, {**fault, "event": event} if event else fault)
        code = running.finish()
        assert code in (0, -signal.SIGKILL), (code, running.stderr[-3000:])
        return code, changes(Path(fault["log"]))

    return run


@pytest.fixture
def done(tmp_path, here):
    """Runs a command line to its end, undisturbed."""
    return lambda argv: here(argv, tmp_path)


# -- training ----------------------------------------------------------------------------------------------------------
def assert_training_survives(root, argv, number, killed, done, whole, event=None):
    """Kill at a change, look, go on to the end; False when the run made fewer changes."""
    code, made = killed(argv(root), root, number, event)
    if code == 0:
        return False
    whole(root, killed=True)
    found = sorted(root.rglob("last.ckpt"))
    done([*argv(root), *(["--ckpt_path", found[-1]] if found else [])])
    steps = [torch.load(path, weights_only=True)["global_step"] for path in root.rglob("last.ckpt")]
    assert max(steps) == 4, (made[-1], steps)
    whole(root, killed=True)
    return True


@pytest.fixture
def four_updates(pretraining):
    return lambda root: pretraining(root, 4, 2)


def test_training_killed_as_its_second_checkpoint_takes_its_place(tmp_path, killed, done, whole, four_updates):
    root = tmp_path / "run"
    log = tmp_path / "log"
    _, made = killed(four_updates(root), root, 10**6, "os.rename")
    moves = [number for number, change in enumerate(made, 1) if change.endswith("last.ckpt")]
    assert len(moves) == 2, made
    shutil.rmtree(root)
    assert not log.exists()
    assert assert_training_survives(root, four_updates, moves[1], killed, done, whole, "os.rename")


SHARES = 5


@pytest.mark.faults
@pytest.mark.parametrize("share", range(SHARES))
def test_training_killed_at_each_change(share, tmp_path, killed, done, whole, four_updates):
    """Every fifth change is this test's."""
    number = share + 1
    while assert_training_survives(tmp_path / f"run{number}", four_updates, number, killed, done, whole):
        number += SHARES
    assert number > 3 * SHARES, "hardly a change was seen"


def logged(root):
    """The updates in a run's log, whose lines are whole."""
    (file,) = root.rglob("metrics.csv")
    header, *lines = file.read_text().splitlines()
    assert all(line.count(",") == header.count(",") for line in lines), lines
    return {int(line.split(",")[header.split(",").index("step")]) for line in lines}


@pytest.mark.faults
def test_going_on_killed_at_each_renaming(tmp_path, killed, done, whole, pretraining):
    """It replaces the log and the last checkpoint of the run that it goes on with."""
    before = tmp_path / "before"
    done(pretraining(before, 4, 2))
    assert logged(before) >= {0, 1, 2, 3}
    for number in range(1, 12):
        root = tmp_path / f"run{number}"
        shutil.copytree(before, root)
        code, made = killed([*pretraining(root, 5, 2), "--ckpt_path", "last"], root, number, "os.rename")
        whole(root, killed=True)
        assert logged(root) >= {0, 1, 2, 3}, made
        steps = {torch.load(path, weights_only=True)["global_step"] for path in root.rglob("last.ckpt")}
        assert steps <= {4, 5}, made
        if code == 0:
            break
    assert any("metrics.csv" in change for change in made), made
    assert 2 < number < 11


# -- collecting --------------------------------------------------------------------------------------------------------
def collecting(out):
    return ["collect", "--tasks", "cartpole-balance", "--episodes", "3", "--workers", "1", "--out", out]


def assert_same_episodes(ours, theirs):
    ours, theirs = EpisodeStore(ours), EpisodeStore(theirs)
    assert len(ours) == len(theirs)
    for mine, other in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(mine.obs, other.obs)
        np.testing.assert_array_equal(mine.reward, other.reward)


@pytest.mark.faults
def test_collecting_killed_at_each_change(tmp_path, killed, done, whole):
    whole_store = tmp_path / "undisturbed" / "new.h5"
    whole_store.parent.mkdir()
    done(collecting(whole_store))
    for number in range(1, 40):
        root = tmp_path / f"collect{number}"
        root.mkdir()
        code, _ = killed(collecting(root / "new.h5"), root, number)
        if (root / "new.h5").exists():
            whole(root, killed=True)
        if code == 0:
            break
        if not (root / "new.h5").exists():
            done(collecting(root / "new.h5"))
        assert_same_episodes(root / "new.h5", whole_store)
        assert [path.name for path in root.iterdir() if path.suffix == ".h5"] == ["new.h5"]
    assert 3 < number < 39


# -- results that replace earlier ones ---------------------------------------------------------------------------------
def evaluating(out):
    policy = OLD / "mlp_policy.ckpt"
    return ["evaluate", "--checkpoint", policy, "--tasks", "cartpole-swingup", "--episodes", "1", "--out", out]


@pytest.mark.faults
def test_an_evaluation_killed_at_each_change_keeps_the_earlier_result(tmp_path, killed):
    tasks: list[list[str]] = []
    for number in range(1, 20):
        root = tmp_path / f"result{number}"
        root.mkdir()
        (root / "result.json").write_text(json.dumps({"tasks": {"earlier": {}}}))
        code, _ = killed(evaluating(root / "result.json"), root, number)
        tasks.append(list(json.loads((root / "result.json").read_text())["tasks"]))
        if code == 0:
            break
    # The earlier one up to some change, the new one after it.
    assert tasks == sorted(tasks, reverse=True)
    assert tasks[0] == ["earlier"]
    assert tasks[-1] == ["cartpole-swingup"]


@pytest.mark.faults
def test_a_report_killed_at_each_renaming_is_whole(tmp_path, killed):
    """The earlier page, or the new one, and what it shows."""
    record = json.loads((Path(__file__).parent / "demo_record.json").read_text())
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs/record.json").write_text(json.dumps(record))
    for number in range(1, 30):
        root = tmp_path / f"report{number}"
        root.mkdir()
        (root / "index.html").write_text("<html>earlier</html>")
        code, made = killed(["report", tmp_path / "runs", "--out", root], root, number, "os.rename")
        page = (root / "index.html").read_text()
        assert page.strip().endswith("</html>"), made
        for source in re.findall(r'"(assets/[^"]+)"', page):
            assert (root / source).read_text().strip().endswith("</svg>"), made
        if code == 0:
            break
    assert "earlier" not in page
    assert 3 < number < 29


@pytest.mark.faults
def test_a_sweep_killed_at_each_renaming_goes_on(tmp_path, killed, start, whole, store):
    look = {"over": ["n"], "run": ["data", "check", "{store}"]}
    plan = {"name": "small", "axes": {"n": [0, 1]}, "variables": {"store": str(store)}, "stages": {"look": look}}
    (tmp_path / "small.yaml").write_text(json.dumps(plan))
    for number in range(1, 20):
        root = tmp_path / f"swept{number}"
        argv = ["sweep", tmp_path / "small.yaml", "--out", root, "--workers", "2"]
        code, _ = killed(argv, root, number, "os.rename")
        whole(root, killed=True)
        if code == 0:
            break
        again = start(argv, tmp_path)  # which takes its time, as a cell does that outlived its sweep and holds the lock
        assert again.finish() == 0, again.stderr[-3000:]
        assert [json.loads(path.read_text())["status"] for path in root.rglob("cell.json")] == ["finished"] * 2
    assert 3 < number < 19


# -- folders that replace earlier ones ---------------------------------------------------------------------------------
REPLACES = """
import sys
from pathlib import Path
from lit_pwm.experiments.own_folders import only_one, replacing_folder
with only_one(Path(sys.argv[1]), "demo"), replacing_folder(Path(sys.argv[1]) / "run", overwrite=True) as folder:
    (folder / "record.json").write_text(sys.argv[2])
"""


def test_a_run_that_is_replaced_is_never_lost(tmp_path):
    def replace(root, text, **fault):
        own = {"PYTHONPATH": os.pathsep.join([str(HOOKS), *filter(None, sys.path)])}
        if fault:
            own["LIT_PWM_TEST_FAULT"] = json.dumps({"root": str(root), "log": str(tmp_path / "log"), **fault})
        return subprocess.run([sys.executable, "-c", REPLACES, root, text], env=os.environ | own).returncode

    for number in range(1, 30):
        root = tmp_path / f"out{number}"
        root.mkdir()
        assert replace(root, "old") == 0
        code = replace(root, "new", kill=number)
        assert code in (0, -signal.SIGKILL)
        kept = [path.read_text() for path in root.glob("run*/record.json")]
        assert "old" in kept or "new" in kept
        assert replace(root, "next") == 0
        assert sorted(path.name for path in root.iterdir()) == [".lock", "run"]
        if code == 0:
            break
    assert 8 < number < 29
