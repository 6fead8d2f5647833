"""How well a world model foresees that episodes end: the Brier score of its continuation head, and its reliability."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypedDict

import torch
from torch import Tensor
from torchmetrics import Metric

from lit_pwm.batch import Batch
from lit_pwm.models.world_model import WorldModel
from lit_pwm.options import checked

EDGES = (0.0, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0)
"""Of the bins of a reliability curve: logarithmic where ends are rare. A bin holds its lower edge."""


class ReliabilityBin(TypedDict):
    """Held-out transitions whose predicted probability of the end lies between two neighbours of `EDGES`."""

    count: int
    predicted: float
    """The mean of what is predicted."""
    observed: float
    """The share that ended."""


class ContinuationRecord(TypedDict):
    """What held-out transitions of a task say of a continuation head."""

    transitions: int
    ends: int
    brier: float
    base_rate: float
    """The rate of ends in the training episodes."""
    brier_base_rate: float
    """The score of always predicting that rate."""
    bins: list[ReliabilityBin]
    """Those that hold any transition, in order."""


class ContinuationScore(Metric):
    """Brier score of predicted ends, and how often what is predicted comes true.

    For each task with ends, over the valid transitions of slices: (p_t − y_t)² with p_t = 1 − c(ẑ_t, a_t, task) and y_t
    = 1 where the episode was terminated (Brier 1950). States ẑ_t are predicted open loop from the first observation, as
    they are where the head is trained and where policies are. The score of always predicting the training data's rate
    of ends stands beside it: a head above it knows nothing that a constant does not. A reliability curve compares the
    mean of p with the share that ended, in bins of p (`EDGES`). Sums are added over ranks.

    Args:
        rates: task → the rate of ends among the transitions of its training episodes, of the tasks that have any.
        task_names: the world model's tasks.
        dtype: of the sums, see `lit_pwm.models.accumulation.accumulation_dtype`.
    """

    full_state_update = False
    count: Tensor  # [N, bins], as the next two
    predicted: Tensor
    ended: Tensor
    squared: Tensor  # [N]

    @checked
    def __init__(
        self, rates: Mapping[str, float], task_names: Sequence[str], dtype: torch.dtype = torch.float64
    ) -> None:
        super().__init__()
        self.rates, self.task_names = dict(rates), tuple(task_names)
        shape = (len(self.task_names), len(EDGES) - 1)
        for name in ("count", "predicted", "ended"):
            self.add_state(name, torch.zeros(shape, dtype=dtype), dist_reduce_fx="sum")
        self.add_state("squared", torch.zeros(len(self.task_names), dtype=dtype), dist_reduce_fx="sum")

    @torch.no_grad()
    def update(self, world_model: WorldModel, batch: Batch) -> None:
        """Add a batch of slices; one without `terminated`, or of other tasks, adds what went on.

        Args:
            world_model: with a continuation head.
            batch: `obs [H+1, B, O]`, `action [H, B, A]`, `task [B]`, and `terminated` and `valid` [H, B].
        """
        actions, task = batch["action"], batch["task"]
        latents, _ = world_model.rollout(world_model.encode(batch["obs"][0], task), actions, task)
        end = 1 - world_model.continuation(latents[:-1], actions, task).to(self.count.dtype)
        happened = torch.zeros_like(end) if (terminated := batch.get("terminated")) is None else terminated.to(end)
        valid = torch.ones_like(end, dtype=torch.bool) if (found := batch.get("valid")) is None else found
        rows = task.expand(end.shape)[valid]
        end, happened = end[valid], happened[valid]
        place = torch.bucketize(end, torch.tensor(EDGES[1:-1], dtype=end.dtype, device=end.device), right=True)
        for name, values in (("count", torch.ones_like(end)), ("predicted", end), ("ended", happened)):
            getattr(self, name).index_put_((rows, place), values, accumulate=True)
        self.squared.index_add_(0, rows, (end - happened).square())

    def compute(self) -> dict[str, Tensor]:
        """As `scores_of`."""
        return {key: torch.tensor(value, device=self.device) for key, value in scores_of(self.records()).items()}

    def records(self) -> dict[str, ContinuationRecord]:
        """Of each task with ends that was seen. Call on synchronised state."""
        sums = {name: getattr(self, name).double().cpu() for name in ("count", "predicted", "ended", "squared")}
        return {
            name: _record(self.rates[name], {key: values[row] for key, values in sums.items()})
            for row, name in enumerate(self.task_names)
            if self.rates.get(name, 0.0) > 0 and sums["count"][row].sum() > 0
        }


def _record(rate: float, sums: Mapping[str, Tensor]) -> ContinuationRecord:
    number, ends = float(sums["count"].sum()), float(sums["ended"].sum())
    columns = zip(*(sums[key].tolist() for key in ("count", "predicted", "ended")), strict=True)
    return {
        "transitions": round(number),
        "ends": round(ends),
        "brier": float(sums["squared"]) / number,
        "base_rate": rate,
        "brier_base_rate": rate**2 + (1 - 2 * rate) * ends / number,
        "bins": [
            {"count": round(count), "predicted": predicted / count, "observed": ended / count}
            for count, predicted, ended in columns
            if count
        ],
    }


def scores_of(records: Mapping[str, ContinuationRecord]) -> dict[str, float]:
    """`continuation_brier` and `continuation_brier_base_rate`: means over tasks with ends, and each with `/TASK`."""
    found: dict[str, float] = {}
    for key in ("brier", "brier_base_rate") if records else ():
        own = {f"continuation_{key}/{task}": float(record[key]) for task, record in records.items()}
        found |= {f"continuation_{key}": sum(own.values()) / len(own), **own}
    return found
