"""Commands with workers that are told to stop: at most three seconds, no worker left, no traceback, and they go on."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

import pytest

OLD = Path(__file__).parents[1] / "fixtures_v1"
CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}
WITHIN = 3.0
SLACK = 3.0
"""For a machine that is busy with other tests."""


def assert_ended(running, number):
    code = running.finish(within=60)
    took = time.monotonic() - running.asked
    assert code == CODES[number], (code, running.stderr[-3000:])
    assert "Traceback" not in running.stderr, running.stderr[-3000:]
    assert took < WITHIN + SLACK


def collecting(out, episodes=30):
    return ["collect", "--tasks", "cheetah-run", "--episodes", episodes, "--workers", "2", "--out", out]


def wait_for_work(running, out):
    """Until a shard holds an episode."""
    end = time.monotonic() + 120
    while not any(path.is_file() and path.stat().st_size > 100_000 for path in out.parent.rglob("*")):
        assert running.process.poll() is None, running.stderr
        assert time.monotonic() < end, list(out.parent.rglob("*"))
        time.sleep(0.05)


@pytest.mark.faults
@pytest.mark.parametrize("group", [False, True], ids=["one", "all"])
@pytest.mark.parametrize("number", CODES)
def test_collecting_stops_and_goes_on(number, group, tmp_path, start, whole):
    out = tmp_path / "data" / "new.h5"
    out.parent.mkdir()
    running = start(collecting(out), tmp_path)
    wait_for_work(running, out)
    running.signal(number, group)
    assert_ended(running, number)
    assert not out.exists()
    kept = sum(path.stat().st_size for path in out.parent.rglob("*") if path.is_file())
    again = start(collecting(out), tmp_path)  # it takes up what is there
    assert again.finish(within=300) == 0, again.stderr
    assert kept > 100_000
    whole(out.parent)


@pytest.mark.faults
@pytest.mark.parametrize("pause", [0.0, 0.05, 0.3, 1.0])
def test_a_second_interrupt_ends_collecting_too(pause, tmp_path, start):
    out = tmp_path / "data" / "new.h5"
    out.parent.mkdir()
    running = start(collecting(out), tmp_path)
    wait_for_work(running, out)
    running.signal(signal.SIGINT, group=True)
    time.sleep(pause)
    if running.process.poll() is None:
        running.signal(signal.SIGINT, group=True)
    assert_ended(running, signal.SIGINT)


@pytest.mark.faults
def test_collecting_stopped_while_it_starts(tmp_path, start):
    """Whatever it is doing, also imports of its workers."""
    for seconds in (0.5, 1.5, 3.0, 4.0):
        out = tmp_path / f"data{seconds}" / "new.h5"
        out.parent.mkdir()
        running = start(collecting(out, episodes=3000), tmp_path)
        time.sleep(seconds)
        running.signal(signal.SIGINT, group=True)
        code = running.finish(within=60)
        assert code in (130, -signal.SIGINT), (seconds, code, running.stderr)  # the latter before Python has our code
        assert seconds < 1 or "Traceback" not in running.stderr, running.stderr


def test_collecting_is_interrupted(tmp_path, start):
    out = tmp_path / "data" / "new.h5"
    out.parent.mkdir()
    running = start(collecting(out), tmp_path)
    wait_for_work(running, out)
    running.signal(signal.SIGINT, group=True)
    assert_ended(running, signal.SIGINT)
    assert not out.exists()


@pytest.mark.faults
@pytest.mark.parametrize("number", CODES)
def test_an_evaluation_stops(number, tmp_path, start):
    """In its environments, wherever they run."""
    work = tmp_path / "work"
    work.mkdir()
    argv = ["evaluate", "--checkpoint", OLD / "mlp_policy.ckpt", "--tasks", "cartpole-swingup", "--episodes", "5000"]
    running = start([*argv, "--out", work / "result.json"], tmp_path)
    end = time.monotonic() + 120
    while b"libmujoco" not in Path(f"/proc/{running.process.pid}/maps").read_bytes():
        assert running.process.poll() is None, running.stderr
        assert time.monotonic() < end
        time.sleep(0.1)
    time.sleep(4)
    running.signal(number, group=number == signal.SIGINT)
    assert_ended(running, number)
    assert list(work.iterdir()) == []


@pytest.mark.faults
@pytest.mark.parametrize("number", CODES)
def test_the_demo_stops(number, tmp_path, start):
    out = tmp_path / "report"
    running = start(["demo", "--minutes", "2", "--out", out], tmp_path)
    end = time.monotonic() + 180
    while not list(out.rglob("*.h5")):  # its noise has been collected: networks train, or are about to
        assert running.process.poll() is None, running.stderr
        assert time.monotonic() < end
        time.sleep(0.1)
    time.sleep(5)
    running.signal(number, group=number == signal.SIGINT)
    assert_ended(running, number)
    assert not (out / "index.html").exists()


def workers_of(pid):
    """The processes that a process started and that have this project's pool in their command line or are spawned."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            _, parent = status.read_text().rsplit(")", 1)[1].split()[:2]
            if int(parent) == pid and b"spawn_main" in status.with_name("cmdline").read_bytes():
                found.append(int(status.parent.name))
    return found


@pytest.mark.faults
@pytest.mark.parametrize("command", ["collect", "demo"])
def test_a_killed_worker_is_named_in_one_paragraph(command, tmp_path, start):
    out = tmp_path / "data" / "new.h5"
    out.parent.mkdir()
    line = collecting(out, 500) if command == "collect" else ["demo", "--minutes", "2", "--out", tmp_path / "data"]
    running = start(line, tmp_path)
    end = time.monotonic() + 180
    while not workers_of(running.process.pid) or (command == "demo" and not list(tmp_path.rglob("round_1"))):
        assert running.process.poll() is None, running.stderr
        assert time.monotonic() < end
        time.sleep(0.1)
    time.sleep(3)
    worker = workers_of(running.process.pid)[0]
    os.kill(worker, signal.SIGKILL)
    assert running.finish(within=60) == 2, running.stderr
    assert "Traceback" not in running.stderr
    assert f"error: The worker process {worker}" in running.stderr
    assert "SIGKILL" in running.stderr


@pytest.mark.faults
def test_two_demos_do_not_work_in_one_folder(tmp_path, start):
    first = start(["demo", "--minutes", "2", "--out", "report"], tmp_path)
    first.wait_for(tmp_path / "report/runs/demo-seed0.unfinished/made_by_lit_pwm.json")
    second = start(["demo", "--minutes", "2", "--out", "report", "--seed", "1"], tmp_path)
    assert second.process.wait(60) == 2
    assert "Another demo works in 'report'" in " ".join(second.stderr.split())
    first.signal(signal.SIGTERM)
    assert_ended(first, signal.SIGTERM)
