"""What it costs that an update is made whole or not at all: updates of the demo's networks with and without it.

    python benchmarks/atomic_update_cost.py        # about one minute

Without means: nothing is copied or put back, the global generators are left alone, and no loss or gradient is looked
at. Both kinds take turns, one update each, in an order drawn anew for each round; the ratio is the median over rounds.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import tempfile
import time
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Self, cast

from lightning.pytorch import LightningModule, Trainer
from torch import nn

import callbacks
import datamodules
from lit_pwm.batch import Batch
from lit_pwm.experiments.recipes import DEMO_POLICY, DEMO_WORLD_MODEL, Recipe
from lit_pwm.experiments.training import be_quiet
from lit_pwm.optim import follow_
from lit_pwm.policy_learning import PolicyLearning
from lit_pwm.pretraining import WorldModelPretraining
from lit_pwm.updates.atomic_update import AtomicUpdate
from lit_pwm.updates.optimized_part import OptimizedPart

RESULT = Path(__file__).parent / "results" / "atomic_update.json"
TASK = "cartpole-swingup"


class Unguarded(AtomicUpdate):
    """Copies nothing, seeds nothing and refuses nothing."""

    def __init__(self, module: LightningModule, early: Sequence[OptimizedPart] = ()) -> None:
        super().__init__(module, early)
        self.streams.seeded = lambda *_, **__: nullcontext()  # ty: ignore[invalid-assignment]

    def __enter__(self) -> Self:
        self._watched.clear()
        return self

    def __exit__(self, *_: object) -> None:  # ty: ignore[incompatible-method-override]
        """Nothing to look at, nothing to put back."""

    def step(self, optimizer: OptimizedPart) -> None:
        """Always."""
        optimizer.step()

    def follow(self, slow: nn.Module, fast: nn.Module, rate: float) -> None:
        """Always."""
        follow_(slow, fast, rate)

    def require(self) -> None:
        """Nothing is known."""


def trained(configs: Sequence[str], updates: int, folder: str, **options: Any) -> tuple[Trainer, str]:
    """A run of a recipe that has ended, and its last checkpoint; options have `__` for the dot in their names."""
    given = {name.replace("__", "."): value for name, value in options.items()}
    recipe = Recipe(configs, {**given, "data.batches_per_epoch": updates, "trainer.max_steps": updates})
    recipe["trainer.callbacks"], last = None, callbacks.LastCheckpoint()
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "limit_val_batches": 0}
    module, data, trainer = recipe.made([last], default_root_dir=folder, **quiet)
    trainer.fit(module, datamodule=data)
    return trainer, last.best_model_path


def compare(module: WorldModelPretraining | PolicyLearning, batch: Batch, rounds: int) -> dict[str, float]:
    early = module._atomic._early
    kinds = {"with": AtomicUpdate(module, early), "without": Unguarded(module, early)}
    for kind in kinds.values():  # who draws is looked for in a run's first update, which is none of these
        kind.streams._has_looked = True
    seconds: dict[str, list[float]] = {name: [] for name in kinds}
    order = random.Random(0)
    for _ in range(rounds):
        for name in order.sample(list(kinds), len(kinds)):
            module._atomic = kinds[name]
            started = time.process_time()
            module.training_step(batch, 0)
            seconds[name].append(time.process_time() - started)
    ratios = [a / b for a, b in zip(seconds["with"], seconds["without"], strict=True)]
    return {
        "updates": rounds,
        "cpu_ms_without": 1e3 * statistics.median(seconds["without"]),
        "cpu_ms_with": 1e3 * statistics.median(seconds["with"]),
        "ratio": statistics.median(ratios),
        "copied_numbers": sum(copy.numel() for copy in kinds["with"]._copies),
    }


def measure(rounds: int, folder: str) -> dict[str, Any]:
    store = f"{folder}/demo.h5"
    datamodules.collect((TASK,), 12, store, behaviour="noise", workers=1, seed=0, progress=False)
    be_quiet()
    model, last = trained(DEMO_WORLD_MODEL, 40, f"{folder}/model", data__store=store)
    policy, _ = trained(DEMO_POLICY, 4, f"{folder}/policy", data__store=store, model__world_model_checkpoint=last)
    result = {}
    for trainer in (model, policy):
        parts = cast("Any", trainer)  # which Lightning attaches from outside
        module, batch = parts.lightning_module, next(iter(parts.datamodule.train_dataloader()))
        parts.log_every_n_steps = 0
        name = "world model" if isinstance(module, WorldModelPretraining) else "policy"
        result[name] = compare(module, batch, rounds)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=400)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = measure(arguments.rounds, folder)
    for name, row in result.items():
        print(f"{name}: {row['cpu_ms_without']:.2f} ms without, {row['cpu_ms_with']:.2f} ms with, {row['ratio']:.3f}")
    RESULT.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
