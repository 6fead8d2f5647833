"""What tests of several folders share; `tests` is on the path of pytest (pyproject.toml) and of programs it starts."""

from __future__ import annotations

import os
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch import LightningDataModule, LightningModule, Trainer, seed_everything

ROOT = Path(__file__).parents[1]
"""Of the checkout."""


def quiet_trainer(updates: int, **options: Any) -> Trainer:
    """A Trainer on one CPU process that prints, logs and keeps nothing; options win.

    Args:
        updates: when to end.
        **options: of the Trainer.
    """
    quiet = {
        "accelerator": "cpu", "devices": 1, "logger": False, "log_every_n_steps": 1, "num_sanity_val_steps": 0,
        "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False,
    }  # fmt: skip
    return Trainer(max_steps=updates, **{**quiet, **options})


def fit(
    module: LightningModule,
    data: LightningDataModule | None,
    updates: int,
    seed: int | None = 1,
    ckpt_path: Path | str | None = None,
    **options: Any,
) -> Trainer:
    """Run a module for so many updates, from a checkpoint if one is given.

    Args:
        module: what is trained.
        data: what it is trained on.
        updates: when to end, those before the checkpoint included.
        seed: of everything; None leaves the generators alone.
        ckpt_path: where to go on from.
        **options: of the Trainer, as `quiet_trainer` takes them.

    Returns:
        The trainer.
    """
    if seed is not None:
        seed_everything(seed, verbose=False)
    trainer = quiet_trainer(updates, **options)
    # Our checkpoints hold plain values only, so that resuming never has to run code from a file.
    trainer.fit(module, datamodule=data, ckpt_path=ckpt_path, weights_only=True if ckpt_path else None)
    return trainer


def environment_of_programs() -> dict[str, str]:
    """The environment of a program that trains on several ranks: this one without traces of a run, and our paths."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("PL_", "LOCAL_RANK", "NODE_RANK"))}
    return kept | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])}


def start_of(seed: int, task: str, number: int) -> int:
    """The environment's seed of an episode that is collected."""
    sequence = np.random.SeedSequence([seed, zlib.crc32(task.encode()), number])
    return int(sequence.spawn(2)[0].generate_state(1)[0])
