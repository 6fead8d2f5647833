"""Returns of policies in the real environments.

Episode i of an evaluation starts from environment seed S + i, whatever else runs beside it: equal policies give equal
returns, to the bit, in workers or in this process, for one episode or for a hundred.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Self, cast

import numpy as np
from gymnasium.vector import VectorEnv
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from lit_pwm.errors import LitPWMError, did_you_mean
from lit_pwm.evaluation.acting import ROWS, Policy, RandomPolicy, act_for_seeds
from lit_pwm.evaluation.known_tasks import make_tasks_known
from lit_pwm.evaluation.model_gap import ModelGap, VisitedStates, merge_gaps
from lit_pwm.evaluation.results import EvaluationResult, TaskResult, print_result, write_result
from lit_pwm.evaluation.video import Recording, record_video
from lit_pwm.models.policy import Policy as LatentPolicy
from lit_pwm.options import Count, Positive, Seed, check_options, checked
from lit_pwm.runtime.consoles import ProgressConsole
from lit_pwm.tasks.registry import task_spec
from lit_pwm.tasks.spec import DIVERGED
from lit_pwm.tasks.vector import Mode, close_vector_env, make_vector_env
from lit_pwm.tasks.workers import TIMEOUT

__all__ = [
    "EvaluationResult",
    "Evaluator",
    "Policy",
    "RandomPolicy",
    "Recording",
    "TaskResult",
    "evaluate_policy",
    "evaluate_task",
    "print_result",
    "record_video",
    "write_result",
]

_LOG = logging.getLogger(__name__)
_MOST_OPEN_ENVS = 160
"""An `Evaluator` that would need more environments than this keeps those of one task open at a time."""


def evaluate_task(
    policy: Policy,
    task: str,
    episodes: int,
    seed: int,
    *,
    vector_env: VectorEnv | None = None,
    deterministic: bool = True,
    mode: Mode = "auto",
    timeout: float = TIMEOUT,
    on_step: Callable[[int], None] | None = None,
) -> TaskResult:
    """Run a policy's episodes in one task.

    An episode whose simulation diverges ends there: what it earned before is its return, and its seed is kept in the
    result's `diverged`, of which a notice is logged.

    Args:
        policy: acts.
        task: a registered task, or `gym:ID`.
        episodes: how many; episode i uses environment seed `seed` + i.
        seed: the first environment seed.
        vector_env: environments of the task to use, which stay open; made and closed here if not given.
        deterministic: let the policy act without noise.
        mode: how environments made here are stepped, see `lit_pwm.tasks.vector.make_vector_env`.
        timeout: seconds in which a worker process of environments made here has to answer.
        on_step: called after each step with the number of episodes that took it.

    Raises:
        LitPWMError: the policy does not know the task or gave actions of a wrong shape or not finite, there are fewer
            than one episodes, the task cannot be run, or a worker process died or did not answer.
    """
    _check(policy, [task], episodes, seed)
    env = make_vector_env(task, min(episodes, ROWS), mode, timeout) if vector_env is None else vector_env
    try:
        returns: list[float] = []
        gaps: list[ModelGap] = []
        diverged: list[int] = []
        together = min(env.num_envs, ROWS)
        for start in range(0, episodes, together):
            seeds = range(seed + start, seed + min(start + together, episodes))
            # A world model is asked what it promises where its own deterministic policy acts.
            visited = VisitedStates(policy, task) if deterministic and isinstance(policy, LatentPolicy) else None
            totals, ended = _run_batch(policy, task, env, seeds, deterministic, on_step, visited)
            returns += totals
            diverged += ended
            if visited is not None:
                gaps.append(visited.compare())
    finally:
        if vector_env is None:
            close_vector_env(env)
    if diverged:
        _LOG.warning(
            "The simulation of %r diverged in %d of %d episodes (environment seeds %s), which ended there.",
            task, len(diverged), episodes, ", ".join(map(str, diverged[:8])) + (", …" if len(diverged) > 8 else ""),
        )  # fmt: skip
    return TaskResult(tuple(returns), merge_gaps(gaps), tuple(diverged), task_spec(task).score_range)


def _run_batch(
    policy: Policy,
    task: str,
    env: VectorEnv,
    seeds: Sequence[int],
    deterministic: bool,
    on_step: Callable[[int], None] | None,
    visited: VisitedStates | None,
) -> tuple[list[float], list[int]]:
    """The episodes of these seeds, in the first environments of the vector; the others idle.

    Returns:
        The return of each, and the seeds of those that diverged.
    """
    count = len(seeds)
    # gymnasium's vectors take a seed for each environment, which their base class's signature does not say.
    obs, _ = cast(Any, env).reset(seed=[*seeds, *[seeds[0]] * (env.num_envs - count)])
    totals, running = np.zeros(count), np.ones(count, dtype=bool)
    diverged = np.zeros(count, dtype=bool)
    actions = np.zeros((env.num_envs, task_spec(task).action_dim), np.float32)
    while running.any():
        actions[:count] = act_for_seeds(policy, task, obs[:count], seeds, deterministic)
        before = obs
        obs, rewards, terminated, truncated, info = env.step(actions)
        if visited is not None:
            visited.add(before[:count], rewards[:count], running, terminated[:count])
        if on_step is not None:
            on_step(int(running.sum()))
        totals[running] += rewards[:count][running]
        if f"_{DIVERGED}" in info:  # gymnasium's mask of the environments that said so
            diverged |= running & info[f"_{DIVERGED}"][:count]
        running &= ~(terminated | truncated)[:count]
    if visited is not None and diverged.any():
        visited.discard(diverged)
    return totals.tolist(), [seed for seed, bad in zip(seeds, diverged, strict=True) if bad]


class Evaluator:
    """Evaluates policies again and again over the same tasks and seeds, with environments that stay open in between.

    Use it in a `with` block, or call `close()`. Environments are made at the first run.

    Args:
        tasks: registered tasks, or `gym:ID`.
        episodes: episodes of each; episode i uses environment seed `seed` + i.
        seed: the first environment seed.
        mode: how environments are stepped, see `lit_pwm.tasks.vector.make_vector_env`.
        timeout: seconds in which a worker process of environments has to answer.

    Raises:
        LitPWMError: a task is not known, or there are fewer than one episodes.
    """

    @checked
    def __init__(
        self,
        tasks: Sequence[str],
        episodes: Count,
        seed: Seed,
        *,
        mode: Mode = "auto",
        timeout: Positive = TIMEOUT,
    ) -> None:
        for task in tasks:
            task_spec(task)
        _check_numbers(episodes, seed)
        self.tasks, self.episodes, self.seed = tuple(tasks), episodes, seed
        self.mode: Mode = mode
        self.timeout = timeout
        self._keep_open = len(self.tasks) * min(episodes, ROWS) <= _MOST_OPEN_ENVS
        self._open: dict[str, VectorEnv] = {}

    def run(
        self, policy: Policy, *, checkpoint: str | None = None, deterministic: bool = True, progress: bool = False
    ) -> EvaluationResult:
        """Evaluate a policy.

        Args:
            policy: acts.
            checkpoint: the file that the policy came from, for the record.
            deterministic: let it act without noise.
            progress: show a bar with the remaining time.

        Raises:
            LitPWMError: as `evaluate_task`.
        """
        _check(policy, self.tasks, self.episodes, self.seed)
        results = {}
        with _bar(progress) as bar:
            for task in self.tasks:
                line = bar.add_task(task, total=self.episodes * task_spec(task).episode_length)
                results[task] = evaluate_task(
                    policy, task, self.episodes, self.seed, vector_env=self._env(task), deterministic=deterministic,
                    on_step=lambda steps, line=line: bar.advance(line, steps),
                )  # fmt: skip
                if not self._keep_open:
                    self.close()
        seeds = tuple(range(self.seed, self.seed + self.episodes))
        return EvaluationResult(results, seeds, checkpoint, deterministic)

    def _env(self, task: str) -> VectorEnv:
        if task not in self._open:
            self._open[task] = make_vector_env(task, min(self.episodes, ROWS), self.mode, self.timeout)
        return self._open[task]

    def close(self) -> None:
        """Close the environments and end their processes; a later run makes new ones."""
        while self._open:
            close_vector_env(self._open.popitem()[1])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def evaluate_policy(
    policy: Policy,
    tasks: Sequence[str],
    episodes: int,
    seed: int,
    *,
    checkpoint: str | None = None,
    deterministic: bool = True,
    progress: bool = False,
    mode: Mode = "auto",
    timeout: float = TIMEOUT,
) -> EvaluationResult:
    """Evaluate a policy once; see `Evaluator`, whose environments are closed here at the end."""
    make_tasks_known(policy, tasks, checkpoint)
    with Evaluator(tasks, episodes, seed, mode=mode, timeout=timeout) as evaluator:
        return evaluator.run(policy, checkpoint=checkpoint, deterministic=deterministic, progress=progress)


def _check(policy: Policy, tasks: Sequence[str], episodes: int, seed: int) -> None:
    _check_numbers(episodes, seed)
    make_tasks_known(policy, tasks)
    for task in tasks:
        if task not in policy.task_names:
            raise LitPWMError(
                f"The policy cannot act in the task {task!r}, which it does not know. "
                f"{did_you_mean(task, policy.task_names)} Evaluate it in tasks that it knows."
            )


def _check_numbers(episodes: Count, seed: Seed) -> None:
    check_options(_check_numbers, locals(), "An evaluation")
    if seed > 2**32 - episodes:
        raise LitPWMError(
            f"An evaluation of {episodes} episodes from environment seed {seed} on was asked for. Accepted: seeds of "
            f"which the first is 0 or more and the last, {seed + episodes - 1}, below 2**32."
        )


def _bar(shown: bool) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("steps"))
    return Progress(
        *columns, TimeElapsedColumn(), TimeRemainingColumn(), console=ProgressConsole(stderr=True), disable=not shown
    )
