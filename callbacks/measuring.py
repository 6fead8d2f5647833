"""What the measuring callbacks share: leaving the random streams alone, and writing at any update."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from lit_pwm.models.accumulation import accumulation_dtype


def random_streams_kept(device: torch.device) -> AbstractContextManager[None]:
    """A block after which torch's global generators are as they were before it."""
    return torch.random.fork_rng(devices=[device] if device.type == "cuda" else [])


def write_metrics(trainer: Trainer, module: LightningModule, metrics: Mapping[str, Tensor | float]) -> None:
    """Give metrics to the loggers, averaged over ranks, under the number that Lightning gives to the update just made.

    Unlike `LightningModule.log`, it does not drop what is measured between the updates at which the Trainer logs. Every
    rank must call it with the same keys.
    """
    if not metrics:
        return
    dtype = accumulation_dtype(module.device)
    values = torch.tensor([float(value) for value in metrics.values()], dtype=dtype, device=module.device)
    gathered = module.all_gather(values)
    assert isinstance(gathered, Tensor)
    means = gathered.reshape(-1, len(metrics)).mean(0).tolist()
    for logger in trainer.loggers:
        logger.log_metrics(dict(zip(metrics, means, strict=True)), step=trainer.global_step - 1)
