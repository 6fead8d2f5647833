"""What the JSON records of experiments hold. Readers check that it is so (`record_fields`) before they say it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NotRequired, TypedDict

if TYPE_CHECKING:  # reports need no networks
    from lit_pwm.evaluation.model_gap import GapRecord
    from lit_pwm.measures.compute_record import ComputeRecord
    from lit_pwm.measures.continuation_score import ContinuationRecord

JsonValue = str | int | float | bool | list | dict | None


# -- of a cell of a sweep ---------------------------------------------------------------------------------------------
class ReturnsOfTask(TypedDict):
    """What is needed of the returns of a task (`lit_pwm.evaluation.results.TaskRecord` has more)."""

    returns: list[float]


class ReturnsRecord(TypedDict):
    """What `lit-pwm evaluate` wrote, but for the checkpoint and the versions."""

    tasks: dict[str, ReturnsOfTask]


class CurveRecord(TypedDict):
    """Returns while a run trained, and what it had cost by then."""

    columns: list[str]
    rows: list[list[float | None]]
    """A number for each column; None for a cost that was not logged."""


class TrainedRecord(TypedDict):
    """A training run of a cell."""

    updates: int
    final: dict[str, float]
    """The last value of each metric."""
    curve: CurveRecord
    compute: ComputeRecord | None


class StageRecord(TypedDict):
    """A stage of a cell: the command that was run."""

    command: str
    configs: dict[str, str]
    """Config → digest of its content."""
    seconds: float
    started: str


class SweepRecord(TypedDict):
    """The record of one combination of a sweep's labels."""

    kind: str
    format: int
    sweep: str
    labels: dict[str, str]
    values: NotRequired[dict[str, str]]
    """Axis → what its label stands for; absent from records of older versions."""
    axes: dict[str, list[str]]
    returns: dict[str, ReturnsRecord]
    """Which checkpoint → its evaluation."""
    discovery: NotRequired[dict[str, float]]
    """Task → the return from which an episode has found it."""
    world_model: NotRequired[TrainedRecord]
    policy: NotRequired[TrainedRecord]
    cells: dict[str, StageRecord]
    versions: dict[str, str]


# -- of a demo --------------------------------------------------------------------------------------------------------
Points = list[tuple[int, float]]
"""(update, value) of a curve."""


class SeriesRecord(TypedDict):
    """One quantity of an open-loop window, a number for each step."""

    name: str
    truth: list[float]
    prediction: list[float]
    copy_last: list[float]


class OpenLoopRecord(TypedDict):
    """A held-out window beside what a world model predicts of it."""

    task: str
    steps: int
    series: list[SeriesRecord]


class DemoTaskRecord(TypedDict):
    """What a demo reports of a task."""

    task: str
    returns: dict[str, list[float]]
    """`random`, `data`, `best` and `last` → returns of episodes."""
    open_loop: OpenLoopRecord
    video: str | None
    video_return: float
    notice: str | None
    model_gap: NotRequired[GapRecord | None]
    continuation: NotRequired[ContinuationRecord | None]


class DemoRecord(TypedDict):
    """The record of a demo."""

    kind: str
    format: int
    seed: int
    started: str
    command: str
    plan: dict[str, JsonValue]
    seconds: dict[str, float]
    versions: dict[str, str]
    machine: dict[str, str | int]
    tasks: list[DemoTaskRecord]
    world_model_curves: dict[str, Points]
    policy_curves: dict[str, dict[str, Points]]
