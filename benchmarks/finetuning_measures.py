"""How well a world model predicts one task's held-out slices, in units that two encoders share."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import cast

import torch

from datamodules import MultitaskDataModule
from lit_pwm.batch import Batch
from lit_pwm.measures.decoded_error import DecodedError
from lit_pwm.models import WorldModel

HORIZON = 16


@torch.no_grad()
def measures_of(world_model: WorldModel, stores: Sequence[str], task: str, seed: int) -> dict[str, float]:
    """Decoded error after 16 open-loop steps, and the reward's cross-entropy and correlation at encoded states.

    Args:
        world_model: in evaluation mode, on the CPU.
        stores: paths of the stores.
        task: the task.
        seed: of the data, as in training; which episodes are held out does not depend on it.
    """
    data = MultitaskDataModule(list(stores), tasks=[task], horizon=HORIZON, batch_size=128, val_batches=16, seed=seed)
    data.setup("validate")
    data.bind_tasks(world_model.task_names, world_model.obs_dim, world_model.action_dim)
    errors = DecodedError(world_model.task_names, world_model.latent_dim, world_model.obs_dim, (HORIZON,))
    entropies, predicted, real = [], [], []
    for batch in cast("Iterable[Batch]", data.val_dataloader()):
        errors.update(world_model, batch)
        z, embedding = world_model.encode(batch["obs"][:-1], batch["task"]), world_model.task_embedding(batch["task"])
        there = batch.get("valid", torch.ones_like(batch["reward"], dtype=torch.bool))
        entropies.append(world_model.reward_head.loss(z, batch["action"], embedding, batch)[there])
        predicted.append(world_model.reward_head.decode(world_model.reward_head(z, batch["action"], embedding))[there])
        real.append(batch["reward"][there])
    pair = torch.stack([torch.cat(predicted), torch.cat(real)]).double()
    correlation = torch.corrcoef(pair)[0, 1].nan_to_num(0.0)  # of a head that says the same everywhere
    return {
        "decoded_error": float(errors.compute()[f"decoded_error_{HORIZON}"]),
        "reward_cross_entropy": float(torch.cat(entropies).mean()),
        "reward_correlation": float(correlation),
    }
