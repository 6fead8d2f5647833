"""Vectors of environments: the same numbers in workers as in this process, and no worker is left behind."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv

from lit_pwm.errors import LitPWMError
from lit_pwm.tasks import make_env, task_spec
from lit_pwm.tasks.vector import chosen_mode, close_vector_env, make_vector_env
from lit_pwm.tasks.workers import WorkerFailedError, WorkerVectorEnv


def roll(env, steps, width):
    rng = np.random.default_rng(0)
    obs, _ = env.reset(seed=[7, 8, 9])
    observed, rewards = [obs], []
    for _ in range(steps):
        obs, reward, terminated, truncated, _ = env.step(rng.uniform(-1, 1, (3, width)).astype(np.float32))
        observed.append(obs)
        rewards.append(reward)
    return np.stack(observed), np.stack(rewards), terminated, truncated


@pytest.fixture(scope="module")
def both():
    """500 steps of hopper in either mode; hopper's contacts would show the smallest difference."""
    result = {}
    for mode in ("sync", "async"):
        env = make_vector_env("hopper-stand", 3, mode)
        result[mode] = (type(env), *roll(env, 500, 4))
        close_vector_env(env)
    return result


def test_sync_and_async_agree_to_the_bit(both):
    assert both["sync"][0] is SyncVectorEnv
    assert issubclass(both["async"][0], AsyncVectorEnv)
    for ours, theirs in zip(both["sync"][1:], both["async"][1:], strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_each_environment_is_that_of_its_seed_and_its_last_observation_is_not_a_resets(both):
    _, observed, rewards, terminated, truncated = both["sync"]
    env, rng = make_env("hopper-stand"), np.random.default_rng(0)
    obs, _ = env.reset(seed=8)
    np.testing.assert_array_equal(obs, observed[0, 1])
    for step in range(500):
        obs, reward, *_ = env.step(rng.uniform(-1, 1, (3, 4)).astype(np.float32)[1])
        assert reward == rewards[step, 1]
    np.testing.assert_array_equal(obs, observed[-1, 1])
    assert truncated.all()
    assert not terminated.any()


def test_an_episode_can_follow_another_in_the_same_environments(both):
    env = make_vector_env("hopper-stand", 3, "sync")
    roll(env, 500, 4)
    again = roll(env, 500, 4)
    close_vector_env(env)
    np.testing.assert_array_equal(again[1], both["sync"][2])


def test_closing_ends_the_workers_and_can_be_repeated():
    before = set(multiprocessing.active_children())
    env = make_vector_env("pendulum-swingup", 2, "async")
    workers = [process.pid for process in env.processes]
    assert len(set(multiprocessing.active_children()) - before) == 2
    close_vector_env(env)
    close_vector_env(env)
    assert set(multiprocessing.active_children()) <= before
    for pid in workers:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_closing_amid_a_step_or_after_a_workers_death_works_too():
    env = make_vector_env("pendulum-swingup", 2, "async")
    env.reset(seed=[0, 1])
    env.step_async(np.zeros((2, 1), np.float32))
    os.kill(env.processes[0].pid, signal.SIGKILL)
    close_vector_env(env)
    assert not any(process.is_alive() for process in env.processes)


def test_a_killed_worker_is_named():
    env = make_vector_env("pendulum-swingup", 2, "async")
    try:
        env.reset(seed=[0, 1])
        os.kill(env.processes[1].pid, signal.SIGKILL)
        with pytest.raises(WorkerFailedError, match=f"{env.processes[1].pid}.* environment 1 of .*SIGKILL"):
            env.step(np.zeros((2, 1), np.float32))
    finally:
        close_vector_env(env)


def test_a_stopped_worker_is_named_after_the_timeout_and_ended():
    env = make_vector_env("pendulum-swingup", 2, "async", timeout=8)  # workers must have started by then
    pid = env.processes[0].pid
    try:
        env.reset(seed=[0, 1])
        os.kill(pid, signal.SIGSTOP)
        with pytest.raises(WorkerFailedError, match=f"{pid}, which runs environment 0 .* not answered for 8 seconds"):
            env.step(np.zeros((2, 1), np.float32))
    finally:
        close_vector_env(env)
    assert not alive(pid)


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_workers_end_without_a_word_with_a_parent_that_never_closed_them(tmp_path, sign):
    program = tmp_path / "program.py"
    program.write_text(
        "import time\n"
        "from lit_pwm.tasks.vector import make_vector_env\n"
        "if __name__ == '__main__':\n"
        "    env = make_vector_env('pendulum-swingup', 1, 'async')\n"
        "    print(env.processes[0].pid, flush=True)\n"
        "    time.sleep(60)\n"
    )
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, str(program)], start_new_session=True, **pipes) as parent:
        worker = int(parent.stdout.readline())
        os.killpg(parent.pid, sign) if sign != signal.SIGKILL else parent.kill()
        deadline = time.monotonic() + 5
        while alive(worker) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not alive(worker)
        assert "Traceback" not in parent.stderr.read()


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks for processes under /proc")
def test_workers_do_not_outlive_a_killed_parent(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(
        "import sys, time\n"
        "from lit_pwm.tasks.vector import make_vector_env\n"
        "if __name__ == '__main__':\n"
        "    env = make_vector_env('pendulum-swingup', 2, 'async')\n"
        "    print(*[process.pid for process in env.processes], flush=True)\n"
        "    time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, str(program)], stdout=subprocess.PIPE, text=True) as parent:
        workers = [int(pid) for pid in parent.stdout.readline().split()]
        assert len(workers) == 2
        parent.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 20
    while any(alive(pid) for pid in workers) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(alive(pid) for pid in workers)


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_workers_run_one_thread_and_ignore_ctrl_c_and_this_process_keeps_its_settings():
    before = dict(os.environ), signal.getsignal(signal.SIGINT)
    env = make_vector_env("pendulum-swingup", 1, "async")
    try:
        worker = env.processes[0].pid
        environ = Path(f"/proc/{worker}/environ").read_bytes().split(b"\0")
        assert b"OMP_NUM_THREADS=1" in environ
        os.kill(worker, signal.SIGINT)
        env.reset(seed=[3])
        env.step(np.zeros((1, 1), np.float32))
        assert env.processes[0].is_alive()
    finally:
        close_vector_env(env)
    assert (dict(os.environ), signal.getsignal(signal.SIGINT)) == before


def test_a_spec_of_ones_own_runs_in_workers_that_never_registered_it():
    spec = replace(task_spec("pendulum-swingup"), name="my-pendulum", episode_length=3)
    env = make_vector_env(spec, 2, "async")
    env.reset(seed=[0, 1])
    truncated = [env.step(np.zeros((2, 1), np.float32))[3].tolist() for _ in range(3)]
    close_vector_env(env)
    assert truncated == [[False, False], [False, False], [True, True]]


def test_the_mode_depends_on_the_cores_and_the_cost_of_a_step():
    walker, pendulum = task_spec("walker-run"), task_spec("pendulum-spin")
    assert chosen_mode(walker, 10, cores=2) == "sync"
    assert chosen_mode(walker, 10, cores=16) == "async"
    assert chosen_mode(walker, 1, cores=16) == "sync"
    assert chosen_mode(pendulum, 2, cores=16) == "sync"
    assert chosen_mode(replace(walker, domain="of-ones-own"), 10, cores=16) == "async"
    kind = SyncVectorEnv if chosen_mode(pendulum, 2) == "sync" else WorkerVectorEnv
    env = make_vector_env("pendulum-spin", 2)
    assert type(env) is kind
    close_vector_env(env)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("pendulum-swinup", 2), "'pendulum-swingup'"),
        (("pendulum-swingup", 0), "ask for 1 or more"),
        (("pendulum-swingup", 2, "fork"), "'auto', 'sync', 'async'"),
        (("mw-hammer", 2, "async"), "Meta-World"),
    ],
)
def test_bad_arguments_are_refused(arguments, words):
    with pytest.raises(LitPWMError, match=words):
        make_vector_env(*arguments)
