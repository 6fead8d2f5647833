"""The stages of an experiment as functions that can run in processes of their own.

Each takes plain values, writes its files under a folder, and returns plain values, so that stages that do not depend on
each other can run side by side.
"""

from __future__ import annotations

import contextlib
import logging
import time
import warnings
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger

import callbacks
from lit_pwm.experiments.metrics import read_curves
from lit_pwm.experiments.recipes import DEMO_POLICY, DEMO_WORLD_MODEL, Recipe
from lit_pwm.models import Dynamics
from lit_pwm.runtime.processes import keep_freed_memory

_CHATTER = ("lightning.pytorch", "lightning.fabric")
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


@dataclass(frozen=True)
class WorldModelPlan:
    """How a small world model is trained. Updates are counted by the trainer's global step.

    Attributes:
        updates: updates.
        initial_checkpoint: start from this world model.
        configs: the recipe.
        options: of the command line, over the recipe's.
        dynamics: makes the dynamics from latent, action and task-embedding width; the recipe's if not given.
    """

    updates: int
    initial_checkpoint: str | None = None
    configs: Sequence[str] = DEMO_WORLD_MODEL
    options: Mapping[str, Any] = field(default_factory=dict)
    dynamics: Callable[[int, int, int], Dynamics] | None = None


@dataclass(frozen=True)
class PolicyPlan:
    """How a policy is trained and when it is evaluated.

    Attributes:
        updates: updates.
        evaluate_every: updates between evaluations, which choose the best checkpoint.
        episodes: of each evaluation; as many as the recipe has if not given.
        configs: the recipe.
        options: of the command line, over the recipe's.
    """

    updates: int
    evaluate_every: int
    episodes: int | None = None
    configs: Sequence[str] = DEMO_POLICY
    options: Mapping[str, Any] = field(default_factory=dict)


def be_quiet() -> None:
    """One torch thread, and no chatter of Lightning's, for a process that is an experiment's own."""
    torch.set_num_threads(1)
    for name in _CHATTER:
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", ".*does not have many workers.*")
    warnings.filterwarnings("ignore", ".*number of training batches.*")
    warnings.filterwarnings("ignore", ".*treespec, LeafSpec.*")


@contextlib.contextmanager
def quiet() -> Generator[None, None, None]:
    """A block, or a function, in which an experiment itself says what it does; a caller's process is as before then."""
    threads, levels = torch.get_num_threads(), {name: logging.getLogger(name).level for name in _CHATTER}
    try:
        with warnings.catch_warnings():
            be_quiet()
            yield
    finally:
        torch.set_num_threads(threads)
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


class _Telling(Callback):
    """Tells a queue or a bar how far a policy's training is."""

    def __init__(self, task: str, tell: Report, every: int = 10) -> None:
        self.task, self.tell, self.every = task, tell, every

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        if trainer.global_step % self.every == 0:
            self._tell(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._tell(trainer)  # with the last evaluation, which comes after the last batch

    def _tell(self, trainer: Trainer) -> None:
        latest = trainer.callback_metrics.get("eval/return")
        self.tell(self.task, trainer.global_step, trainer.max_steps, None if latest is None else float(latest))


@quiet()
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
    keep_freed_memory()
    started = time.perf_counter()
    recipe = Recipe(
        plan.configs,
        {
            "model.initial_checkpoint": plan.initial_checkpoint,
            "data.store": list(stores),
            "data.batches_per_epoch": plan.updates,
            "data.seed": seed,
            "trainer.max_steps": plan.updates,
            "trainer.val_check_interval": max(1, plan.updates // 10),
            **plan.options,
        },
    )
    warmup = "model.optimizer.warmup_steps"
    recipe[warmup] = min(recipe[warmup], plan.updates // 5)
    if plan.dynamics is not None:
        recipe["model.world_model.dynamics"] = plan.dynamics
    seed_everything(seed, verbose=False)
    own = [callbacks.RunProgress()] if progress else []
    module, data, trainer = recipe.made([*_guards(), *own], **_in_folder(folder, plan.updates, progress))
    trainer.fit(module, datamodule=data)
    return _trained(trainer, folder, started)


@quiet()
def train_policy(
    task: str,
    world_model: str | None,
    stores: Sequence[str],
    folder: str,
    plan: PolicyPlan,
    seed: int,
    tell: Report | None = None,
) -> Trained:
    """Train and evaluate one task's policy on a world model.

    Args:
        task: the task.
        world_model: checkpoint of the world model; None where the plan trains one from scratch.
        stores: episode stores, whose observations imagination starts from.
        folder: where checkpoints and curves go.
        plan: numbers of updates and evaluations.
        seed: seed of weights, data order and noise.
        tell: called now and then with the progress.
    """
    keep_freed_memory()
    started = time.perf_counter()
    recipe = Recipe(
        plan.configs,
        {
            "model.world_model_checkpoint": world_model,
            "data.store": list(stores),
            "data.tasks": [task],
            "data.batches_per_epoch": plan.updates,
            "data.seed": seed,
            "trainer.max_steps": plan.updates,
            "trainer.val_check_interval": plan.evaluate_every,
            **plan.options,
        },
    )
    if plan.episodes is not None:
        recipe.callback("EnvironmentEvaluation").episodes = plan.episodes
    seed_everything(seed, verbose=False)
    own = [_Telling(task, tell)] if tell is not None else []
    module, data, trainer = recipe.made([*_guards(), *own], **_in_folder(folder, plan.updates))
    trainer.fit(module, datamodule=data)
    return _trained(trainer, folder, started)


def _guards() -> list[Callback]:
    """What every run has, whatever its recipe."""
    return [callbacks.LastCheckpoint(), callbacks.NonFiniteGuard()]


def _in_folder(folder: str, updates: int, progress: bool = False) -> dict[str, object]:
    """Options of a Trainer whose run lies in a folder of its own, without Lightning's version folders."""
    return {
        "log_every_n_steps": max(1, updates // 50),
        "default_root_dir": folder,
        "logger": CSVLogger(folder, name="", version=""),
        "enable_progress_bar": progress,
        "enable_model_summary": False,
    }


def _trained(trainer: Trainer, folder: str, started: float) -> Trained:
    last = next(kept for kept in trainer.checkpoint_callbacks if isinstance(kept, callbacks.LastCheckpoint))
    best = next(kept for kept in trainer.checkpoint_callbacks if isinstance(kept, ModelCheckpoint) and kept.monitor)
    return Trained(
        best=best.best_model_path,
        score=float(best.best_model_score) if best.best_model_score is not None else float("nan"),
        last=last.best_model_path,
        curves=read_curves(Path(folder) / "metrics.csv"),
        seconds=time.perf_counter() - started,
    )
