"""What a flow costs: FLOPs and time of real updates of every cell, and the lean solver beside torchdiffeq.

    python benchmarks/flow_cost.py        # about two minutes

Cells take turns, a few updates each, so that a busy neighbour slows all of them alike; ratios are medians of ratios of
the same turn. The prediction is the ratio of FLOPs, counted by torch on one whole update (forward, backward, critics).
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from formulation_table import PAGE, put
from lightning.pytorch import Callback, LightningModule, Trainer
from torch.utils.flop_counter import FlopCounterMode

import datamodules
from lit_pwm import PolicyLearning, WorldModelPretraining
from lit_pwm.experiments.stages import be_quiet
from lit_pwm.flow import Solver, integrate
from lit_pwm.flow.integration import integrate_torchdiffeq
from lit_pwm.models import (
    Actor,
    CriticEnsemble,
    Dynamics,
    FlowActor,
    FlowDynamics,
    MLPActor,
    MLPDynamics,
    RefinementDynamics,
)
from lit_pwm.models.conditioned_field import ConditionedField

RESULT = Path(__file__).parent / "results" / "flow_cost.json"


@dataclass(frozen=True)
class Size:
    """The networks of a size; widths of each kind have the MLP's parameters within 2 %.

    Attributes:
        networks: widths of the world model around its dynamics.
        dynamics: kinds of dynamics, the first being the one that others are compared with.
        actors: kinds of actors, likewise.
        critics: widths of the critics' hidden layers.
        updates: updates of each cell in a turn.
    """

    networks: dict[str, Any]
    dynamics: dict[str, Callable[..., Dynamics]]
    actors: dict[str, Callable[..., Actor]]
    critics: tuple[int, ...]
    updates: int


SIZES = {
    "demo": Size(
        {"latent_dim": 128, "encoder_dim": 256, "reward_dim": 128, "task_dim": 16},
        {
            "mlp": partial(MLPDynamics, hidden_dim=256, rescale_inputs=True),
            "flow": partial(FlowDynamics, hidden_dim=216),
            "refinement": partial(RefinementDynamics, hidden_dim=219),
        },
        {"mlp": partial(MLPActor, hidden_dims=(128, 128)), "flow": partial(FlowActor, hidden_dims=(125, 125))},
        (128, 128),
        23,
    ),
    "PWM's 5 M": Size(
        {"latent_dim": 512, "encoder_dim": 256, "reward_dim": 512, "task_dim": 64},
        {
            "mlp": partial(MLPDynamics, hidden_dim=512, rescale_inputs=True),
            "flow": partial(FlowDynamics, hidden_dim=408),
            "refinement": partial(RefinementDynamics, hidden_dim=408),
        },
        {
            "mlp": partial(MLPActor, hidden_dims=(400, 200, 100)),
            "flow": partial(FlowActor, hidden_dims=(400, 200, 100)),
        },
        (400, 200),
        9,
    ),
}
SKIPPED = 3


class Clock(Callback):
    """CPU-seconds of each update; FLOPs of the third one, whose time is not kept."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.flops = 0

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Start the clock."""
        if batch_idx == SKIPPED - 1:
            self._counter = FlopCounterMode(display=False)
            self._counter.__enter__()
        self._started = time.process_time()

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        """Stop it."""
        if len(self.seconds) == SKIPPED - 1:
            self._counter.__exit__(None, None, None)
            self.flops = self._counter.get_total_flops()
        self.seconds.append(time.process_time() - self._started)


def fit(module: LightningModule, data: Any, updates: int) -> Clock:
    clock = Clock()
    trainer = Trainer(
        accelerator="cpu", max_steps=updates, max_epochs=-1, limit_val_batches=0, logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, callbacks=[clock],
    )  # fmt: skip
    trainer.fit(module, datamodule=data)
    return clock


def world_model(size: Size, kind: str, store: str) -> tuple[LightningModule, Clock]:
    torch.manual_seed(0)
    module, updates = WorldModelPretraining(dynamics=size.dynamics[kind], rho=0.9, **size.networks), size.updates
    data = datamodules.MultitaskDataModule(store=store, horizon=4, batch_size=128, batches_per_epoch=updates, seed=0)
    return module, fit(module, data, updates)


def policy(size: Size, kind: tuple[str, str], checkpoints: dict[str, str], store: str) -> Clock:
    torch.manual_seed(0)
    critic, updates = partial(CriticEnsemble, hidden_dims=size.critics), size.updates
    module = PolicyLearning(checkpoints[kind[0]], actor=size.actors[kind[1]], critic=critic, critic_passes=1)
    data = datamodules.MultitaskDataModule(store=store, horizon=1, batch_size=64, batches_per_epoch=updates, seed=0)
    return fit(module, data, updates)


def compare(clocks: dict[str, list[Clock]]) -> dict[str, dict[str, float]]:
    """Ratios to the first cell: of FLOPs, of time, and of the one to the other."""
    times = {name: [statistics.median(c.seconds[SKIPPED:]) for c in turns] for name, turns in clocks.items()}
    base, table = next(iter(clocks)), {}
    for name, turns in clocks.items():
        flops = turns[0].flops / clocks[base][0].flops
        ratio = statistics.median(a / b for a, b in zip(times[name], times[base], strict=True))
        table[name] = {
            "flops": turns[0].flops,
            "cpu_ms": 1e3 * statistics.median(times[name]),
            "flops_ratio": flops,
            "time_ratio": ratio,
            "time_over_prediction": ratio / flops,
        }
    return table


def measure(size: Size, turns: int, store: str, folder: str) -> dict[str, Any]:
    """Ratios of all cells of a size."""
    checkpoints = {}
    models: dict[str, list[Clock]] = {kind: [] for kind in size.dynamics}
    for turn in range(turns):
        for kind in size.dynamics:
            module, clock = world_model(size, kind, store)
            models[kind].append(clock)
            if turn == 0:
                checkpoints[kind] = f"{folder}/{kind}.ckpt"
                module.trainer.save_checkpoint(checkpoints[kind])
    cells = [(model, actor) for model in size.dynamics for actor in size.actors]
    policies: dict[str, list[Clock]] = {" / ".join(cell): [] for cell in cells}
    for _ in range(turns):
        for cell in cells:
            policies[" / ".join(cell)].append(policy(size, cell, checkpoints, store))
    return {"world model": compare(models), "policy": compare(policies)}


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
                end = function(lambda tau, y: field(tau, y, condition), x, Solver(method, substeps))
                end.sum().backward()
                seconds[name].append(time.process_time() - started)
        pairs = zip(seconds["torchdiffeq"], seconds["lean"], strict=True)
        ratios[f"{method}, K = {substeps}"] = statistics.median(a / b for a, b in pairs)
    return ratios


def text(result: dict[str, Any]) -> str:
    """The table of the ratios, and a sentence on the solvers."""
    rows = ["| size | update of | CPU ms | FLOPs ÷ MLP's | time ÷ MLP's | time ÷ prediction |"]
    rows.append("| --- | --- |" + " ---: |" * 4)
    for size, parts in result["sizes"].items():
        for part, cells in parts.items():
            for name, row in cells.items():
                rows.append(
                    f"| {size} | {part}: {name} | {row['cpu_ms']:.1f} | {row['flops_ratio']:.2f} "
                    f"| {row['time_ratio']:.2f} | {row['time_over_prediction']:.2f} |"
                )
    solvers = ", ".join(f"{ratio:.2f} ({name})" for name, ratio in result["solver"].items())
    return "\n".join(rows) + f"\n\nSteps by torchdiffeq take this many times as long as the lean loop's: {solvers}."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--result", type=Path, default=RESULT)
    options = parser.parse_args()
    be_quiet()
    with tempfile.TemporaryDirectory() as folder:
        store = f"{folder}/data.h5"
        datamodules.collect(("cartpole-swingup", "cup-catch"), 8, Path(store), behaviour="noise", workers=2, seed=0)
        sizes = {name: measure(size, options.turns, store, folder) for name, size in SIZES.items()}
        result = {"sizes": sizes, "solver": solver(20 * options.turns)}
    options.result.parent.mkdir(parents=True, exist_ok=True)
    options.result.write_text(json.dumps(result, indent=1) + "\n")
    print(text(result))
    if options.result == RESULT:
        put(PAGE, "cost", text(result))


if __name__ == "__main__":
    main()
