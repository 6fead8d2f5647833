"""Small policies whose world model is trained beside them, and what is looked at in their updates."""

from __future__ import annotations

import copy
from functools import partial
from typing import Any

import torch
from lightning.pytorch import Callback

import callbacks
from datamodules import MultitaskDataModule
from datamodules.second_stream import SecondStream
from lit_pwm import PolicyLearning
from lit_pwm.models import CriticEnsemble, MLPActor

MODEL = {"latent_dim": 16, "encoder_dim": 16, "reward_dim": 16, "task_dim": 4}


def two_streams(store, every: int = 1, second: bool = True, **options: Any) -> MultitaskDataModule:
    """Slices for the policy, and others, longer and fewer, for the world model."""
    other = SecondStream(horizon=4, batch_size=8, every=every) if second else None
    return MultitaskDataModule(
        store, **{"horizon": 3, "batch_size": 12, "batches_per_epoch": 100, "second": other, **options}
    )


class Given(MultitaskDataModule):
    """Brings slices that are given in the place of its own."""

    def __init__(self, store, batches):
        super().__init__(store, horizon=3, batch_size=12, batches_per_epoch=100)
        self.batches = batches

    def on_after_batch_transfer(self, batch, dataloader_idx):
        return self.batches[self.trainer.global_step]


def learner(checkpoint, **options) -> PolicyLearning:
    settings = {
        "actor": partial(MLPActor, hidden_dims=(8,), task_dim=4),
        "critic": partial(CriticEnsemble, hidden_dims=(8,), task_dim=4),
        "horizon": 3,
        "actor_optimizer": {"average_rate": 0.5},
        "critic_optimizer": {"target_rate": 0.5, "passes": 2, "minibatches": 3},
    }
    return PolicyLearning(None if checkpoint is None else str(checkpoint), **{**settings, **options})


def schedule(pull: Any = None, **parts: Any) -> callbacks.FinetuneSchedule:
    """Part → the update that opens it, or its opening."""
    openings = {name: {"update": one} if isinstance(one, int) else one for name, one in parts.items()}
    return callbacks.FinetuneSchedule(openings, pull)


class Seen(Callback):
    """What there was after each update."""

    def __init__(self, batches=None):
        self.models, self.states, self.logged, self.rates, self.batches = [], [], [], {}, batches

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if self.batches is not None:
            self.batches.append(copy.deepcopy(batch))
        for optimizer in trainer.optimizers:
            for group in optimizer.param_groups:
                self.rates.setdefault(group["name"], []).append(group["lr"])

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.states.append({key: value.clone() for key, value in pl_module.state_dict().items()})
        self.models.append({key: value.clone() for key, value in pl_module.world_model.state_dict().items()})
        metrics = trainer.callback_metrics.items()
        self.logged.append({key: value.item() for key, value in metrics if key.startswith("train/")})


class Saving(Callback):
    """Saves a checkpoint after so many updates."""

    def __init__(self, step, path):
        self.step, self.path = step, path

    def on_train_batch_end(self, trainer, *_):
        if trainer.global_step == self.step:
            trainer.save_checkpoint(self.path)


def moments(module):
    return {name: copy.deepcopy(part.optimizer.state_dict()["state"]) for name, part in module.optimized.items()}


def same(ours, theirs):
    assert ours.keys() == theirs.keys()
    for key, value in ours.items():
        assert torch.equal(torch.as_tensor(value), torch.as_tensor(theirs[key])), key
