"""A process that is killed at any change it makes to a file leaves whole files, and goes on when it is run again."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import torch

from datamodules import EpisodeStore

OLD = Path(__file__).parents[1] / "fixtures_v1"


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
def done(tmp_path, start):
    """Runs a command line to its end, undisturbed."""

    def run(argv):
        running = start(argv, tmp_path)
        assert running.finish() == 0, running.stderr[-3000:]

    return run


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
