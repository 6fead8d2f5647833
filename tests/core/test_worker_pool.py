"""The pool of worker processes: results, messages, errors, and workers that are killed, stopped or orphaned."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from lit_pwm.errors import LitPWMError
from lit_pwm.runtime.pool import Call, Pool, WorkerEndedError
from lit_pwm.runtime.processes import keep_sockets_short

WORK = """
import os, signal, time
from lit_pwm.errors import LitPWMError

def square(x, tell=None):
    if tell is not None:
        tell("at", x)
    return os.getpid(), x * x

def refuse(x):
    raise LitPWMError(f"{x} is refused.")

class Strange(Exception):
    def __init__(self, one, two):
        super().__init__(one)

def strange():
    raise Strange(1, 2)

def kill_me():
    os.kill(os.getpid(), signal.SIGKILL)

def stop_me():
    os.kill(os.getpid(), signal.SIGSTOP)

def survive(path):
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(os.getpid(), number)
    return "alive"

def tick(path):
    open(path, "w").write(str(os.getpid()))
    time.sleep(60)
"""


@pytest.fixture
def work(tmp_path, monkeypatch):
    """A module of functions that workers can import."""
    (tmp_path / "pool_work.py").write_text(WORK)
    monkeypatch.syspath_prepend(str(tmp_path))
    import pool_work  # ty: ignore[import-not-found]

    yield pool_work
    del sys.modules["pool_work"]


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def gone_within(pid, seconds):
    deadline = time.monotonic() + seconds
    while alive(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not alive(pid)


def test_calls_return_and_tell(work):
    messages = []
    with Pool(2) as pool:
        ended = dict(pool.run([Call(f"{x}", work.square, (x,), tells=True) for x in range(5)], messages.append))
        assert sorted(square for _, square in ended.values()) == [0, 1, 4, 9, 16]
        assert sorted(messages) == [("at", x) for x in range(5)]
        pids = {pid for pid, _ in ended.values()}
        again = {pid for _, (pid, _) in pool.run([Call("more", work.square, (3,))])}
        assert again <= pids  # the workers are the same
    assert len(pids) <= 2
    assert not any(alive(pid) for pid in pids)


def test_what_a_call_raises_reaches_the_caller(work):
    with Pool(1) as pool:
        with pytest.raises(LitPWMError, match="7 is refused") as caught:
            list(pool.run([Call("seven", work.refuse, (7,))]))
        assert "In a worker process" in caught.value.__notes__[0]
        with pytest.raises(RuntimeError, match="Strange"):  # which cannot be sent as it is
            list(pool.run([Call("strange", work.strange)]))
        assert [square for _, (_, square) in pool.run([Call("three", work.square, (3,))])] == [9]


def test_a_killed_worker_is_named(work):
    with pytest.raises(WorkerEndedError, match=r"process \d+, which worked on the end, .* SIGKILL"), Pool(1) as pool:
        list(pool.run([Call("the end", work.kill_me)]))


def test_a_stopped_worker_is_named_and_ended(work):
    with Pool(1, silence=1.0) as pool:
        began = time.monotonic()
        with pytest.raises(WorkerEndedError, match="no sign of life") as caught:
            list(pool.run([Call("a nap", work.stop_me)]))
        assert time.monotonic() - began < 10
    assert gone_within(int(str(caught.value).split()[3].rstrip(",")), 1)


def test_workers_leave_signals_to_their_parent(work, tmp_path):
    with Pool(1) as pool:
        assert [answer for _, answer in pool.run([Call("signals", work.survive, (None,))])] == ["alive"]


@pytest.mark.parametrize(
    ("sign", "code"),
    [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGKILL, -signal.SIGKILL)],
)
def test_workers_end_with_their_parent(work, tmp_path, sign, code):
    """After a signal to the whole group, and after a kill of the parent alone, nothing is left and nothing is said."""
    script = """
        import sys
        from lit_pwm.runtime.pool import Call, Pool
        from lit_pwm.errors import RunStopped
        from lit_pwm.runtime.stopping import leave, stopping
        import pool_work

        if __name__ == "__main__":
            try:
                with stopping(), Pool(1) as pool:
                    list(pool.run([Call("ticking", pool_work.tick, ("pid",))]))
            except RunStopped as stop:
                leave(stop.code, tidy=False)
    """
    (tmp_path / "script.py").write_text(textwrap.dedent(script))
    process = subprocess.Popen(
        [sys.executable, "script.py"], cwd=tmp_path, stderr=subprocess.PIPE, start_new_session=True
    )
    try:
        while not ((tmp_path / "pid").is_file() and (tmp_path / "pid").read_text()):
            assert process.poll() is None
            time.sleep(0.05)
        worker = int((tmp_path / "pid").read_text())
        assert alive(worker)
        if sign == signal.SIGKILL:
            process.kill()
        else:
            os.killpg(process.pid, sign)
        assert process.wait(3) == code
        assert gone_within(worker, 3)
        said = process.communicate()[1].strip()
        assert said.count(b"\n") == 0  # that it stops, but no traceback
    finally:
        process.kill()


def test_sockets_are_made_where_their_names_fit(monkeypatch, tmp_path):
    import multiprocessing.connection
    import tempfile
    from multiprocessing import process

    config = dict(vars(process.current_process())["_config"])
    config.pop("tempdir", None)
    monkeypatch.setattr(process.current_process(), "_config", config)
    long = tmp_path / ("x" * 100)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    keep_sockets_short()
    with multiprocessing.connection.Listener(family="AF_UNIX") as listener:
        assert Path(str(listener.address)).parent == Path(config["tempdir"])
    assert tempfile.gettempdir() == str(long)


BORN = """
import multiprocessing, signal, time
from lit_pwm.runtime.stopping import ENDING, shielded_workers

if __name__ == "__main__":
    process = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(60,))
    with shielded_workers():
        process.start()
        lines = open(f"/proc/{process.pid}/status").read().splitlines()
    blocked = next(int(line.split()[1], 16) for line in lines if line.startswith("SigBlk"))
    print(all(blocked >> number - 1 & 1 for number in ENDING), signal.pthread_sigmask(signal.SIG_BLOCK, []))
    process.kill()
"""


def test_the_first_worker_of_a_process_is_born_deaf_too(tmp_path):
    """Whose start also starts Python's tracker of resources, which unblocks signals."""
    (tmp_path / "born.py").write_text(BORN)
    done = subprocess.run([sys.executable, "born.py"], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.stdout == "True set()\n", done.stderr
