"""What a return is worth: the mean return of a task's data, and that of the best constant action."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from policy_study import REPORT_SEED
from study_records import write_record

from datamodules import EpisodeStore
from datamodules.info import episode_returns
from lit_pwm.evaluation.evaluator import Evaluator
from lit_pwm.tasks.registry import task_spec


class ConstantPolicy:
    """The same action always.

    Args:
        task: the only task it acts in.
        action: [action_dim of the task], in [-1, 1].
    """

    def __init__(self, task: str, action: Sequence[float]) -> None:
        self.task_names = (task,)
        self.action = np.asarray(action, np.float32)

    def act(self, obs: np.ndarray, task: str, deterministic: bool = True) -> np.ndarray:
        """The action for each row, [B, action_dim]; `deterministic` changes nothing."""
        return np.tile(self.action, (len(obs), 1))


def grid(width: int, most: int = 21) -> list[tuple[float, ...]]:
    """At most so many constant actions, evenly over [-1, 1] in each of `width` dimensions; zero is one of them.

    In four dimensions or more these are three values in each, whatever their number.
    """
    each = max(3, int(most ** (1 / width) + 1e-9))
    return list(itertools.product(np.linspace(-1, 1, each - (each % 2 == 0)).round(9).tolist(), repeat=width))


def constant_returns(task: str, episodes: int, seed: int, most: int = 21) -> list[tuple[tuple[float, ...], float]]:
    """Each constant action of the grid and its mean return, over the same episodes."""
    with Evaluator([task], episodes, seed) as evaluator:
        return [
            (action, float(np.mean(evaluator.run(ConstantPolicy(task, action)).tasks[task].returns)))
            for action in grid(task_spec(task).action_dim, most)
        ]


def data_returns(stores: Sequence[str], task: str) -> np.ndarray:
    """The return of each of a task's episodes, in the order of the stores: [episodes]."""
    held = [store for store in map(EpisodeStore, stores) if task in store.tasks]
    return np.concatenate([episode_returns(store)[store.task == store.task_names.index(task)] for store in held])


def record_controls(path: Path, stores: Sequence[str], task: str, episodes: int) -> str:
    """Measure and write both; returns what to tell of them.

    The best constant action is chosen by the very episodes of which its return is reported, which flatters it.
    """
    cpu, returns = time.process_time(), data_returns(stores, task)
    constants = constant_returns(task, episodes, REPORT_SEED)
    action, best = max(constants, key=lambda pair: pair[1])
    data = {"mean": float(returns.mean()), "best": float(returns.max()), "episodes": len(returns)}
    record = {"task": task, "data": data, "best_constant": {"action": action, "return": best}, "constants": constants}
    write_record(path, record | {"episodes": episodes, "cpu_seconds": time.process_time() - cpu})
    return f"data {returns.mean():.0f}, best constant action {best:.0f}"
