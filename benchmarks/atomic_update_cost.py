"""What it costs that an update is made whole or not at all: updates of the demo's networks with and without it.

    python benchmarks/atomic_update_cost.py        # about one minute

Without means: nothing is copied, and no loss or gradient is looked at. Both kinds take turns, one update each, in an
order drawn anew for each round; the ratio is the median over rounds.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any, Self

from lightning.pytorch import LightningModule, Trainer

import datamodules
from lit_pwm.experiments import stages
from lit_pwm.pretraining import WorldModelPretraining
from lit_pwm.updates.atomic_update import AtomicUpdate

RESULT = Path(__file__).parent / "results" / "atomic_update.json"
TASK = "cartpole-swingup"


class Unguarded(AtomicUpdate):
    """Copies nothing and refuses nothing."""

    def __enter__(self) -> Self:
        self._watched.clear()
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing to look at, nothing to put back."""


class Kept(Trainer):
    """Remembers the trainers of the demo's stages."""

    made: list[Kept] = []  # noqa: RUF012

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.made.append(self)


def compare(module: LightningModule, batch: Any, rounds: int) -> dict[str, float]:
    optimizers = module.trainer.optimizers[1:]
    kinds = {"with": AtomicUpdate(module, optimizers), "without": Unguarded(module, optimizers)}
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
    stages.Trainer = Kept
    model = stages.train_world_model([store], f"{folder}/model", stages.WorldModelPlan(40), 0, progress=False)
    plan = stages.PolicyPlan(4, 4, episodes=1)
    stages.train_policy(TASK, model.last, [store], f"{folder}/policy", plan, 0)
    result = {}
    for trainer in Kept.made:
        module, batch = trainer.lightning_module, next(iter(trainer.datamodule.train_dataloader()))
        trainer.log_every_n_steps = 0
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
