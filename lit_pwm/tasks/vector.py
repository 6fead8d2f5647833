"""Several environments of one task stepped together, in this process or in workers."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Generator
from typing import Literal

from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv

from lit_pwm.errors import LitPWMError
from lit_pwm.runtime.processes import usable_cores
from lit_pwm.tasks.completing import completed
from lit_pwm.tasks.environment import TaskEnv, make_env
from lit_pwm.tasks.handing_over import Handover, hand_over
from lit_pwm.tasks.registry import task_spec
from lit_pwm.tasks.spec import TaskSpec
from lit_pwm.tasks.workers import TIMEOUT, WorkerVectorEnv

Mode = Literal["auto", "sync", "async"]

# CPU time of one agent step by domain, microseconds, measured with action repeat 2 on one core of a shared machine.
_STEP_COST = {
    "pendulum": 110, "cheetah": 145, "finger": 145, "reacher": 165, "acrobot": 180, "ball_in_cup": 240, "hopper": 250,
    "cartpole": 295, "fish": 325, "walker": 400,
}  # fmt: skip
_TYPICAL_STEP_COST = 200
# What a step costs beside the physics where environments run in workers: this process's share, which it pays for one
# worker after the other, and a worker's own. Measured likewise.
_CALL_COST = 55
_WORKER_COST = 60
# With fewer cores workers gained nothing that could be measured (0.5 to 1.5 times the speed on 2), and a process for
# each environment has to be started.
_FEWEST_CORES = 4
_LEAST_GAIN = 1.5


def make_vector_env(task: str | TaskSpec, num_envs: int, mode: Mode = "auto", timeout: float = TIMEOUT) -> VectorEnv:
    """A vector of environments of one task; close it with `close_vector_env`.

    What environments return does not depend on the mode. Each needs `reset(seed=[...])` first. An environment whose
    episode has ended ignores its next action and starts another episode (`AutoresetMode.NEXT_STEP`), so that one that
    ends before others does not hold them up, and nothing is reset within an episode or before its last observation was
    seen.

    Args:
        task: a registered name, or a spec.
        num_envs: how many.
        mode: `"sync"` steps them one after the other in this process; `"async"` gives each a worker process, which is
            faster where there are many cores and steps are expensive; `"auto"` decides by both, see `chosen_mode`.
        timeout: seconds in which a worker process has to answer; one that was killed or stopped is named then.

    Returns:
        A gymnasium vector environment: observations float32 [num_envs, obs_dim], actions [num_envs, action_dim].

    Raises:
        LitPWMError: the task is not known or cannot be run, or an argument is not one of those above.
    """
    spec = completed(task) if isinstance(task, TaskSpec) else task_spec(task)
    if num_envs < 1:
        raise LitPWMError(f"A vector of {num_envs} environments of {spec.name!r} was asked for; ask for 1 or more.")
    if mode not in ("auto", "sync", "async"):
        raise LitPWMError(
            f"A vector of environments of {spec.name!r} was asked for with mode={mode!r}. Accepted: 'auto', 'sync', "
            f"'async'."
        )
    makers = [functools.partial(_made, spec, hand_over([spec]))] * num_envs
    if (chosen_mode(spec, num_envs) if mode == "auto" else mode) == "sync":
        return SyncVectorEnv(makers, autoreset_mode=AutoresetMode.NEXT_STEP)
    with _one_thread_in_workers():
        return WorkerVectorEnv(makers, spec.name, timeout)


def _made(spec: TaskSpec, handover: Handover) -> TaskEnv:
    handover.take()
    return make_env(spec)


def chosen_mode(spec: TaskSpec, num_envs: int, cores: int | None = None) -> Literal["sync", "async"]:
    """Which mode `"auto"` means: `"async"` on 4 cores or more if it should be at least 1.5 times as fast.

    The expected time of a vector's step in workers is the larger of two: handing out the actions one by one, or the
    physics shared among the cores.

    Args:
        spec: the task, whose domain's cost of a step was measured.
        num_envs: how many environments.
        cores: cores to reckon with; those this process may use if not given.
    """
    cores = usable_cores() if cores is None else cores
    if cores < _FEWEST_CORES:
        return "sync"
    cost = _STEP_COST.get(spec.domain, _TYPICAL_STEP_COST)
    in_workers = max(_CALL_COST, (cost + _WORKER_COST) / min(cores, num_envs))
    return "async" if cost / in_workers >= _LEAST_GAIN else "sync"


def close_vector_env(env: VectorEnv) -> None:
    """Close a vector of environments and end its workers, also those that hang, were killed, or are amid a step."""
    if not env.closed:
        env.close()


@contextlib.contextmanager
def _one_thread_in_workers() -> Generator[None, None, None]:
    """Processes started within run one thread each: with more, busy neighbours make small steps many times slower."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
