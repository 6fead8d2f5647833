"""The stages of an experiment as functions that can run in processes of their own.

Each takes plain values, writes its files under a folder, and returns plain values, so that stages that do not depend on
each other can run side by side.
"""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger

import callbacks
import datamodules
from lit_pwm.experiments.metrics import read_curves
from lit_pwm.models import CriticEnsemble, Dynamics, MLPActor, MLPDynamics
from lit_pwm.options.policy_optimizers import ActorOptimizer, CriticOptimizer
from lit_pwm.policy_learning import PolicyLearning
from lit_pwm.pretraining import WorldModelPretraining
from lit_pwm.runtime.processes import keep_freed_memory

Report = Callable[[str, int, int, float | None], None]
"""Called with (task, update, updates, latest mean return or None) while a policy trains."""


@dataclass(frozen=True)
class Trained:
    """What a training stage leaves.

    Attributes:
        best: checkpoint chosen by validation.
        score: the monitored metric of the best checkpoint.
        last: checkpoint after the last update.
        curves: metric → list of (update, value).
        seconds: wall-clock of the stage.
    """

    best: str
    score: float
    last: str
    curves: dict[str, list[tuple[int, float]]]
    seconds: float


def _small_mlp(*dimensions: int) -> Dynamics:
    return MLPDynamics(*dimensions, hidden_dim=256, rescale_inputs=False)  # TD-MPC2's, as the demo was measured


@dataclass(frozen=True)
class WorldModelPlan:
    """How a small world model is trained. Updates are counted by the trainer's global step.

    Attributes:
        updates: updates.
        batch_size: slices of a batch.
        horizon: transitions of a slice.
        initial_checkpoint: start from this world model.
        dynamics: makes the dynamics from latent, action and task-embedding width.
        accelerator: Lightning's name of where it is trained.
    """

    updates: int
    batch_size: int = 128
    horizon: int = 4
    initial_checkpoint: str | None = None
    dynamics: Callable[[int, int, int], Dynamics] = _small_mlp
    accelerator: str = "cpu"


@dataclass(frozen=True)
class PolicyPlan:
    """How a policy is trained and when it is evaluated."""

    updates: int
    evaluate_every: int
    episodes: int = 10
    evaluation_seed: int = 10_000
    batch_size: int = 64
    horizon: int = 16
    lr: float = 5e-4
    actor_average_rate: float = 0.02


def be_quiet() -> None:
    """One torch thread, and no chatter of Lightning's: an experiment says itself what it does."""
    torch.set_num_threads(1)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    logging.getLogger("lightning.fabric").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", ".*does not have many workers.*")
    warnings.filterwarnings("ignore", ".*number of training batches.*")
    warnings.filterwarnings("ignore", ".*treespec, LeafSpec.*")


class _Telling(Callback):
    """Tells a queue or a bar how far a policy's training is."""

    def __init__(self, task: str, tell: Report, every: int = 10) -> None:
        self.task, self.tell, self.every = task, tell, every

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step % self.every == 0:
            self._tell(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._tell(trainer)  # with the last evaluation, which comes after the last batch

    def _tell(self, trainer: Trainer) -> None:
        latest = trainer.callback_metrics.get("eval/return")
        self.tell(self.task, trainer.global_step, trainer.max_steps, None if latest is None else float(latest))


def train_world_model(
    stores: Sequence[str], folder: str, plan: WorldModelPlan, seed: int, progress: bool = True
) -> Trained:
    """Train a tiny task-conditioned world model on one or several stores.

    Args:
        stores: paths of episode stores.
        folder: where checkpoints and curves go.
        plan: sizes and numbers of updates.
        seed: seed of weights and data order.
        progress: show a progress bar.
    """
    be_quiet()
    keep_freed_memory()
    started = time.perf_counter()
    seed_everything(seed, verbose=False)
    module = WorldModelPretraining(
        dynamics=plan.dynamics,
        latent_dim=128,
        encoder_dim=256,
        encoder_layers=1,
        reward_dim=128,
        task_dim=16,
        initial_checkpoint=plan.initial_checkpoint,
        lr=1e-3,
        encoder_lr_scale=1.0,
        betas=(0.9, 0.99),
        rho=0.9,
        warmup_steps=min(200, plan.updates // 5),
        final_lr_fraction=0.05,
    )
    data = datamodules.MultitaskDataModule(
        store=list(stores),
        horizon=plan.horizon,
        val_horizon=16,
        batch_size=plan.batch_size,
        batches_per_epoch=plan.updates,
        seed=seed,
    )
    last, keeper = callbacks.LastCheckpoint(), ModelCheckpoint(monitor="val/loss", filename="best")
    every = max(1, plan.updates // 10)
    trainer = Trainer(
        accelerator=plan.accelerator,
        devices=1,
        max_steps=plan.updates,
        max_epochs=-1,
        val_check_interval=every,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        log_every_n_steps=max(1, plan.updates // 50),
        default_root_dir=folder,
        logger=CSVLogger(folder, name="", version=""),
        callbacks=[keeper, last, callbacks.NonFiniteGuard(), *([callbacks.RunProgress()] if progress else [])],
        enable_progress_bar=progress,
        enable_model_summary=False,
    )
    trainer.fit(module, datamodule=data)
    return _trained(keeper, last, folder, started)


def train_policy(
    task: str,
    world_model: str,
    stores: Sequence[str],
    folder: str,
    plan: PolicyPlan,
    seed: int,
    tell: Report | None = None,
) -> Trained:
    """Train and evaluate one task's policy on a frozen world model.

    Args:
        task: the task.
        world_model: checkpoint of the world model.
        stores: episode stores, whose observations imagination starts from.
        folder: where checkpoints and curves go.
        plan: numbers of updates and evaluations.
        seed: seed of weights, data order and noise.
        tell: called now and then with the progress.
    """
    be_quiet()
    keep_freed_memory()
    started = time.perf_counter()
    seed_everything(seed, verbose=False)
    module = PolicyLearning(
        world_model_checkpoint=world_model,
        actor=lambda *dimensions: MLPActor(*dimensions, hidden_dims=(128, 128)),
        critic=lambda *dimensions: CriticEnsemble(*dimensions, hidden_dims=(128, 128)),
        reward_scale=0.1,
        actor_optimizer=ActorOptimizer(lr=plan.lr, average_rate=plan.actor_average_rate),
        critic_optimizer=CriticOptimizer(lr=plan.lr, passes=1, minibatches=4),
        horizon=plan.horizon,
    )
    data = datamodules.MultitaskDataModule(
        store=list(stores),
        tasks=[task],
        horizon=1,
        val_horizon=1,
        batch_size=plan.batch_size,
        batches_per_epoch=plan.updates,
        val_batches=1,
        seed=seed,
    )
    last, keeper = callbacks.LastCheckpoint(), ModelCheckpoint(monitor="eval/return", mode="max", filename="best")
    trainer = Trainer(
        accelerator="cpu",
        max_steps=plan.updates,
        max_epochs=-1,
        val_check_interval=plan.evaluate_every,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        log_every_n_steps=max(1, plan.updates // 50),
        default_root_dir=folder,
        logger=CSVLogger(folder, name="", version=""),
        callbacks=[
            callbacks.EnvironmentEvaluation(plan.episodes, plan.evaluation_seed, before_training=False),
            keeper,
            last,
            callbacks.NonFiniteGuard(),
            *([_Telling(task, tell)] if tell is not None else []),
        ],
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, datamodule=data)
    return _trained(keeper, last, folder, started)


def _trained(keeper: ModelCheckpoint, last: ModelCheckpoint, folder: str, started: float) -> Trained:
    return Trained(
        best=keeper.best_model_path,
        score=float(keeper.best_model_score) if keeper.best_model_score is not None else float("nan"),
        last=last.best_model_path,
        curves=read_curves(Path(folder) / "metrics.csv"),
        seconds=time.perf_counter() - started,
    )
