"""How well a finished world model foresees the ends of held-out episodes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import cast

from datamodules import MultitaskDataModule
from lit_pwm.batch import Batch
from lit_pwm.measures.continuation_score import ContinuationRecord, ContinuationScore
from lit_pwm.models import WorldModel


def held_out_continuation(
    world_model: WorldModel, stores: Sequence[str], seed: int, horizon: int = 16, batches: int = 32
) -> dict[str, ContinuationRecord]:
    """The scores of a world model's continuation head on slices of the episodes that its training held out.

    Args:
        world_model: in evaluation mode, on the CPU.
        stores: what it was trained on, split as by default.
        seed: of the slices; which episodes are held out does not depend on it.
        horizon: transitions in a slice.
        batches: of 128 slices.

    Returns:
        Task → its scores, of the tasks with ends; none without a head.
    """
    if world_model.continuation_head is None:
        return {}
    data = MultitaskDataModule(
        list(stores), horizon=horizon, val_horizon=horizon, batch_size=128, val_batches=batches, seed=seed
    )
    data.setup("validate")
    data.bind_tasks(world_model.task_names, world_model.obs_dim, world_model.action_dim)
    score = ContinuationScore(data.termination_rates(), world_model.task_names)
    for batch in cast("Iterable[Batch]", data.val_dataloader()):
        score.update(world_model, batch)
    return score.records()
