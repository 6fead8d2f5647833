"""What a flow costs: FLOPs and time of real updates of every cell, and the lean solver beside torchdiffeq.

    python benchmarks/flow_cost.py        # about eight minutes

Networks are those of configs/, with one pass of the critics, which shows an actor most. Cells take turns, one update
each, in an order drawn anew for each round, so that a busy neighbour slows all of them alike; ratios are medians over
rounds. The prediction is the ratio of FLOPs, counted by torch on one whole update (forward, backward, optimizers,
critics).
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from lightning.pytorch import LightningModule, Trainer
from pages import FLOW_PAGE, markdown, put
from torch.utils._python_dispatch import TorchDispatchMode

import datamodules
from lit_pwm import PolicyLearning, WorldModelPretraining
from lit_pwm.experiments.training import be_quiet
from lit_pwm.flow import FixedStep, integrate
from lit_pwm.flow.integration import integrate_torchdiffeq
from lit_pwm.measures.compute import FlopCounter
from lit_pwm.models.conditioned_field import ConditionedField
from lit_pwm.options.policy_optimizers import CriticOptimizer
from lit_pwm.runtime.processes import keep_freed_memory

RESULT = Path(__file__).parent / "results" / "flow_cost.json"
CONFIGS = Path(__file__).parent.parent / "configs"
WORLD_MODELS, POLICIES = ("mlp", "flow", "refinement"), ("mlp", "flow")


@dataclass(frozen=True)
class Size:
    """Configs and batches.

    Attributes:
        world_model: the end of the names in configs/world_model/.
        policy: likewise in configs/policy/.
        horizon: steps of the world model's slices.
        slices: the world model's batch.
        rollouts: the policy's batch.
        rounds: updates of each cell.
    """

    world_model: str
    policy: str
    horizon: int
    slices: int
    rollouts: int
    rounds: int


SIZES = {
    "factorial": Size("_tiny", "_tiny", 4, 128, 256, 30),
    "demo": Size("_tiny", "_tiny", 4, 128, 64, 60),
    "demo's networks, large batches": Size("_tiny", "_tiny", 16, 256, 512, 16),
    "1 M": Size("_1m", "", 16, 256, 512, 12),
    "5 M": Size("_5m", "", 16, 256, 512, 8),
}


class Operations(TorchDispatchMode):
    """Counts operations that compute something: all but views."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run an operation and count it."""
        self.count += not func.is_view
        return func(*args, **(kwargs or {}))


class Cell:
    """A module whose updates are made one by one, on one batch."""

    def __init__(self, module: LightningModule, data: datamodules.MultitaskDataModule) -> None:
        self.module = module
        self.trainer = Trainer(
            accelerator="cpu", max_steps=3, max_epochs=-1, limit_val_batches=0, logger=False,
            log_every_n_steps=10**9, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        )  # fmt: skip
        self.trainer.fit(module, datamodule=data)
        self.batch = next(iter(data.train_dataloader()))
        with FlopCounter() as flops:
            self.update()
        with Operations() as operations:
            self.update()
        self.flops, self.operations, self.seconds = flops.flops, operations.count, []

    def update(self) -> None:
        """Forward, backward and optimizers, as in training."""
        self.module.training_step(self.batch, 0)

    def time(self) -> None:
        """An update, whose CPU-seconds are kept."""
        started = time.process_time()
        self.update()
        self.seconds.append(time.process_time() - started)


def arguments(config: str) -> dict[str, Any]:
    return yaml.safe_load((CONFIGS / config).read_text())["model"]["init_args"]


def world_model(kind: str, size: Size, store: str) -> Cell:
    torch.manual_seed(0)
    module = WorldModelPretraining(**arguments(f"world_model/{kind}{size.world_model}.yaml"))
    return Cell(
        module, datamodules.MultitaskDataModule(store=store, horizon=size.horizon, batch_size=size.slices, seed=0)
    )


def policy(kind: str, size: Size, checkpoint: str, store: str) -> Cell:
    torch.manual_seed(0)
    options = arguments(f"policy/{kind}{size.policy}.yaml")
    module = PolicyLearning(checkpoint, critic_optimizer=CriticOptimizer(passes=1), **options)
    return Cell(module, datamodules.MultitaskDataModule(store=store, horizon=1, batch_size=size.rollouts, seed=0))


def compare(cells: dict[str, Cell], rounds: int) -> dict[str, dict[str, float]]:
    """Ratios to the first cell: of FLOPs, of operations, of time, and of time to FLOPs."""
    order = random.Random(0)
    for _ in range(rounds):
        for cell in order.sample(list(cells.values()), len(cells)):
            cell.time()
    base, table = next(iter(cells.values())), {}
    for name, cell in cells.items():
        flops = cell.flops / base.flops
        ratio = statistics.median(a / b for a, b in zip(cell.seconds, base.seconds, strict=True))
        table[name] = {
            "flops": cell.flops,
            "operations": cell.operations,
            "cpu_ms": 1e3 * statistics.median(cell.seconds),
            "flops_ratio": flops,
            "operations_ratio": cell.operations / base.operations,
            "time_ratio": ratio,
            "time_over_prediction": ratio / flops,
        }
    return table


def measure(size: Size, store: str, folder: str) -> dict[str, Any]:
    """Ratios of all cells of a size."""
    models = {kind: world_model(kind, size, store) for kind in WORLD_MODELS}
    policies = {}
    for kind, cell in models.items():
        cell.trainer.save_checkpoint(f"{folder}/{kind}.ckpt")
        for actor in POLICIES:
            policies[f"{kind} / {actor}"] = policy(actor, size, f"{folder}/{kind}.ckpt", store)
    return {"world model": compare(models, size.rounds), "policy": compare(policies, size.rounds)}


def solver(turns: int) -> dict[str, float]:
    """Time of torchdiffeq's steps over the lean loop's, forward and backward, at the demo's size."""
    torch.manual_seed(0)
    field, ratios = ConditionedField(128, 145, 216, 2, time_dim=8), {}
    x, condition = torch.randn(128, 128), field.condition(torch.randn(128, 145)).detach()
    for method, substeps in (("euler", 2), ("midpoint", 2), ("rk4", 4)):
        functions: dict[str, Callable[..., torch.Tensor]] = {"lean": integrate, "torchdiffeq": integrate_torchdiffeq}
        seconds: dict[str, list[float]] = {name: [] for name in functions}
        for _ in range(turns):
            for name, function in functions.items():
                started = time.process_time()
                end = function(lambda tau, y: field(tau, y, condition), x, FixedStep(method, substeps))
                end.sum().backward()
                seconds[name].append(time.process_time() - started)
        pairs = zip(seconds["torchdiffeq"], seconds["lean"], strict=True)
        ratios[f"{method}, K = {substeps}"] = statistics.median(a / b for a, b in pairs)
    return ratios


def text(result: dict[str, Any]) -> str:
    """The table of the ratios, and a sentence on the solvers."""
    head = ["size", "update of", "CPU ms", "FLOPs ÷ MLP's", "operations ÷ MLP's", "time ÷ MLP's", "time ÷ prediction"]
    ratios = ("flops_ratio", "operations_ratio", "time_ratio", "time_over_prediction")
    rows = [
        [size, f"{part}: {name}", f"{row['cpu_ms']:.1f}", *(f"{row[ratio]:.2f}" for ratio in ratios)]
        for size, parts in result["sizes"].items()
        for part, cells in parts.items()
        for name, row in cells.items()
    ]
    solvers = ", ".join(f"{ratio:.2f} ({name})" for name, ratio in result["solver"].items())
    table = markdown(head, rows, left=range(2))
    return f"{table}\n\nSteps by torchdiffeq take this many times as long as the lean loop's: {solvers}."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--result", type=Path, default=RESULT)
    options = parser.parse_args()
    be_quiet()
    torch.set_num_threads(1)
    keep_freed_memory()
    with tempfile.TemporaryDirectory() as folder:
        store = f"{folder}/data.h5"
        datamodules.collect(("cartpole-swingup", "cup-catch"), 8, Path(store), behaviour="noise", workers=2, seed=0)
        sizes = {name: measure(size, store, folder) for name, size in SIZES.items()}
        result = {"sizes": sizes, "solver": solver(60)}
    options.result.parent.mkdir(parents=True, exist_ok=True)
    options.result.write_text(json.dumps(result, indent=1) + "\n")
    print(text(result))
    if options.result == RESULT:
        put(FLOW_PAGE, "cost", text(result))


if __name__ == "__main__":
    main()
