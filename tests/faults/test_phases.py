"""A run that is told to stop finishes its update, saves it, and goes on as if nothing had happened."""

from __future__ import annotations

import csv
import json
import signal
import time

import pytest
import torch

CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}
# Hook → updates that have been finished when it is reached, and those that the saved state may have.
PHASES = {
    "train_start": (0, {0, 1}),
    "train_batch_start": (1, {2}),
    "before_backward": (1, {2}),
    "before_optimizer_step": (1, {2}),
    "validation_batch_start": (3, {3}),
    "save_checkpoint": (3, {3, 4}),
    "validation_end": (3, {3, 4}),
}
FAST = ("before_backward", signal.SIGTERM)

long_ones = pytest.mark.faults
matrix = [
    pytest.param(phase, number, id=f"{phase}-{number.name}", marks=() if (phase, number) == FAST else long_ones)
    for phase in PHASES
    for number in CODES
]


def evaluating(episodes, linger=None):
    """The callbacks of a run that evaluates in the environments."""
    own = {
        "class_path": "callbacks.EnvironmentEvaluation",
        "init_args": {"episodes": episodes, "before_training": False},
    }
    return json.dumps([*([{"class_path": "phases.Linger", "init_args": linger}] if linger else []), own])


def assert_same_state(ours, theirs):
    assert ours["global_step"] == theirs["global_step"]
    assert ours["state_dict"].keys() == theirs["state_dict"].keys()
    for key, value in theirs["state_dict"].items():
        assert torch.equal(ours["state_dict"][key], value), key
    for mine, other in zip(ours["optimizer_states"], theirs["optimizer_states"], strict=True):
        for index, moments in other["state"].items():
            for name, value in moments.items():
                assert torch.equal(mine["state"][index][name], value), name


def assert_stopped(running, number):
    code = running.finish(within=60)
    assert code == CODES[number], (code, running.stderr[-3000:])
    assert time.monotonic() - running.asked < 30
    assert "Traceback" not in running.stderr, running.stderr[-3000:]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, pretraining, here):
    """The state after six updates that nothing interrupts."""
    root = tmp_path_factory.mktemp("undisturbed")
    here(pretraining(root), root)
    (path,) = root.rglob("last.ckpt")
    return torch.load(path, weights_only=True)


@pytest.mark.parametrize(("phase", "number"), matrix)
def test_pretraining_stops_and_goes_on(
    phase, number, tmp_path, start, here, pretraining, lingering, last_of, whole, undisturbed
):
    root, reached = tmp_path / "run", tmp_path / "reached"
    before, saved = PHASES[phase]
    running = start([*pretraining(root), *lingering(phase, before, reached)], tmp_path)
    assert int(running.wait_for(reached)) == before
    running.signal(number)
    assert_stopped(running, number)
    whole(root)
    checkpoint = next(root.rglob("last.ckpt"), None)
    if before or checkpoint:  # before the first update there may be nothing to save
        assert last_of(root)["global_step"] in saved
    resumed = ["--ckpt_path", checkpoint] if checkpoint else []
    here([*pretraining(root), *resumed], tmp_path)
    found = {path: torch.load(path, weights_only=True) for path in root.rglob("last.ckpt")}
    (final,) = [content for content in found.values() if content["global_step"] == 6]
    assert_same_state(final, undisturbed)


@pytest.mark.faults
@pytest.mark.parametrize("number", CODES)
@pytest.mark.parametrize(("phase", "before", "saved"), [("before_backward", 1, 2), ("validation_batch_start", 3, 3)])
def test_policy_learning_stops(
    phase, before, saved, number, tmp_path, start, policy_learning, lingering, last_of, whole
):
    root, reached = tmp_path / "run", tmp_path / "reached"
    running = start([*policy_learning(root), *lingering(phase, before, reached)], tmp_path)
    assert int(running.wait_for(reached)) == before
    running.signal(number)
    assert_stopped(running, number)
    assert last_of(root)["global_step"] == saved
    whole(root)


@pytest.mark.faults
@pytest.mark.parametrize("number", CODES)
def test_an_evaluation_stops_and_is_done_again(number, tmp_path, start, here, policy_learning, last_of, whole):
    """In the environments, after update 3: hundreds of episodes would take far longer than the stop may."""
    root, reached = tmp_path / "run", tmp_path / "reached"
    linger = {"phase": "validation_start", "updates": 3, "file": str(reached), "seconds": 0}
    running = start(policy_learning(root, 6, 3, "--trainer.callbacks", evaluating(300, linger)), tmp_path)
    running.wait_for(reached)
    time.sleep(4)
    assert running.process.poll() is None, running.stderr
    running.signal(number)
    assert_stopped(running, number)
    assert time.monotonic() - running.asked < 10
    assert last_of(root)["global_step"] == 3
    whole(root)
    argv = policy_learning(root, 6, 3, "--trainer.callbacks", evaluating(1))
    here([*argv, "--ckpt_path", next(root.rglob("last.ckpt"))], tmp_path)
    rows = [
        row
        for path in root.rglob("metrics.csv")
        for row in csv.DictReader(path.read_text().splitlines())
        if row["eval/return"]
    ]
    assert len({row["step"] for row in rows}) == 2, "not evaluated after both three and six updates"


# -- several ranks -----------------------------------------------------------------------------------------------------
TWO_RANKS = ["--trainer.devices", "2", "--trainer.strategy", "ddp"]


@pytest.mark.faults
@pytest.mark.parametrize("group", [False, True], ids=["one", "all"])
@pytest.mark.parametrize(("phase", "before", "saved"), [("before_backward", 1, 2), ("validation_batch_start", 3, 3)])
def test_two_ranks_stop_together(phase, before, saved, group, tmp_path, start, pretraining, lingering, last_of, whole):
    root, reached = tmp_path / "run", tmp_path / "reached"
    running = start([*pretraining(root), *TWO_RANKS, *lingering(phase, before, reached, 2.0)], tmp_path)
    assert int(running.wait_for(reached)) == before
    running.signal(signal.SIGTERM, group)
    assert_stopped(running, signal.SIGTERM)
    assert last_of(root)["global_step"] == saved
    whole(root)


# -- asked twice -------------------------------------------------------------------------------------------------------
@pytest.mark.faults
def test_a_second_signal_during_validation_ends_it_at_once(tmp_path, start, pretraining, lingering, whole):
    root, reached = tmp_path / "run", tmp_path / "reached"
    running = start([*pretraining(root, 9, 3), *lingering("validation_batch_start", 3, reached, seconds=30)], tmp_path)
    running.wait_for(reached)
    running.signal(signal.SIGTERM)
    time.sleep(1)
    assert running.process.poll() is None
    running.signal(signal.SIGTERM)
    assert running.finish(within=10) in (143, -signal.SIGTERM)
    whole(root, killed=True)
