"""What an evaluation found: returns by task, as a JSON file and as a table."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypedDict

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from lit_pwm.evaluation.model_gap import GapRecord, ModelGap
from lit_pwm.measures.statistics import Interval, t_interval
from lit_pwm.provenance import versions
from lit_pwm.runtime.atomic import replacing
from lit_pwm.runtime.consoles import ResultConsole
from lit_pwm.tasks.spec import DM_CONTROL_SCORES, as_score


class TaskRecord(TypedDict):
    """A `TaskResult` in JSON."""

    returns: list[float]
    mean: float
    std: float
    """With divisor N."""
    normalised: float | None
    """None where returns of the task have no scale."""
    interval_95: list[float] | None
    """None with a single episode."""
    diverged: int
    """Episodes whose simulation diverged: their returns are those up to there."""
    model_gap: GapRecord | None


class EvaluationRecord(TypedDict):
    """An `EvaluationResult` in JSON: what `lit-pwm evaluate --out` writes."""

    tasks: dict[str, TaskRecord]
    checkpoint: str | None
    seeds: list[int]
    deterministic: bool
    versions: dict[str, str]


@dataclass(frozen=True)
class TaskResult:
    """The returns of a policy's episodes in one task, in the order of their seeds.

    Attributes:
        returns: sums of rewards.
        model_gap: what the policy's world model promises in visited states, and what was earned; None for policies
            without a world model, and for sampled actions.
        diverged: environment seeds of the episodes whose simulation diverged, and which ended there.
        score_range: the returns that count as scores of 0 and 1 in the task, by default dm_control's; None where there
            are none.
    """

    returns: tuple[float, ...]
    model_gap: ModelGap | None = None
    diverged: tuple[int, ...] = ()
    score_range: tuple[float, float] | None = DM_CONTROL_SCORES

    @property
    def mean(self) -> float:
        """The mean return."""
        return float(np.mean(self.returns))

    @property
    def std(self) -> float:
        """The standard deviation of the returns about their mean (divisor N)."""
        return float(np.std(self.returns))

    @property
    def normalised(self) -> float | None:
        """The mean return as a score, 0 and 1 at the ends of `score_range`; None without one."""
        return as_score(self.mean, self.score_range)

    @property
    def interval(self) -> Interval | None:
        """Student's t interval (95 %) of the mean over episodes of this one policy; None with a single episode.

        It says how well so many episodes measure the policy, and nothing of what another training run would give.
        """
        return t_interval(self.returns)


@dataclass(frozen=True)
class EvaluationResult:
    """What an evaluation found, and what is needed to repeat it.

    Attributes:
        tasks: task → its returns.
        seeds: environment seeds, in the order of the returns.
        checkpoint: the evaluated file, where it was one.
        deterministic: whether the policy acted without noise.
        versions: of Python and the packages that bear on the numbers.
    """

    tasks: Mapping[str, TaskResult]
    seeds: tuple[int, ...]
    checkpoint: str | None = None
    deterministic: bool = True
    versions: Mapping[str, str] = field(default_factory=versions)

    @property
    def mean(self) -> float:
        """The mean over tasks of their mean returns."""
        return float(np.mean([result.mean for result in self.tasks.values()]))

    def to_json(self) -> EvaluationRecord:
        """The result as plain values."""
        return {
            "tasks": {
                name: {
                    "returns": list(result.returns),
                    "mean": result.mean,
                    "std": result.std,
                    "normalised": result.normalised,
                    "interval_95": None if result.interval is None else list(result.interval),
                    "diverged": len(result.diverged),
                    "model_gap": None if result.model_gap is None else result.model_gap.to_json(),
                }
                for name, result in self.tasks.items()
            },
            "checkpoint": self.checkpoint,
            "seeds": list(self.seeds),
            "deterministic": self.deterministic,
            "versions": dict(self.versions),
        }


def write_result(result: EvaluationResult, path: str | Path) -> None:
    """Write a result as JSON, whole or not at all.

    Raises:
        LitPWMError: the file cannot be written.
    """
    text = json.dumps(result.to_json(), indent=1) + "\n"
    with replacing(path, "The evaluation's result") as beside:
        beside.write_text(text)


def print_result(result: EvaluationResult, console: Console | None = None) -> None:
    """Print a result as a table."""
    table = Table(
        "task", title=f"{len(result.seeds)} episodes, environment seeds {result.seeds[0]} to {result.seeds[-1]}"
    )
    for heading in ("mean return", "95 % over episodes", "std", "lowest", "highest"):
        table.add_column(heading, justify="right")
    for name, task in result.tasks.items():
        interval = "–" if task.interval is None else f"{task.interval.low:.0f} to {task.interval.high:.0f}"
        low, high = min(task.returns), max(task.returns)
        table.add_row(escape(name), f"{task.mean:.1f}", interval, f"{task.std:.1f}", f"{low:.1f}", f"{high:.1f}")
    (console or ResultConsole()).print(table)
