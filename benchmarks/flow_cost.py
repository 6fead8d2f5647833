"""What a flow costs: FLOPs and time of real updates of every cell, and the lean solver beside torchdiffeq.

    python benchmarks/flow_cost.py        # about four minutes

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
from lit_pwm.models import CriticEnsemble, FlowActor, FlowDynamics, MLPActor, MLPDynamics, RefinementDynamics
from lit_pwm.models.conditioned_field import ConditionedField

RESULT = Path(__file__).parent / "results" / "flow_cost.json"
DYNAMICS = {
    "mlp": partial(MLPDynamics, hidden_dim=256, rescale_inputs=True),
    "flow": partial(FlowDynamics, hidden_dim=216),
    "refinement": partial(RefinementDynamics, hidden_dim=219),
}
ACTORS = {"mlp": partial(MLPActor, hidden_dims=(128, 128)), "flow": partial(FlowActor, hidden_dims=(125, 125))}
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


def world_model(kind: str, store: str, updates: int) -> tuple[LightningModule, Clock]:
    torch.manual_seed(0)
    module = WorldModelPretraining(
        dynamics=DYNAMICS[kind], latent_dim=128, encoder_dim=256, reward_dim=128, task_dim=16, rho=0.9
    )
    data = datamodules.MultitaskDataModule(store=store, horizon=4, batch_size=128, batches_per_epoch=updates, seed=0)
    return module, fit(module, data, updates)


def policy(kind: tuple[str, str], checkpoints: dict[str, str], store: str, updates: int) -> Clock:
    torch.manual_seed(0)
    module = PolicyLearning(
        checkpoints[kind[0]],
        actor=ACTORS[kind[1]],
        critic=partial(CriticEnsemble, hidden_dims=(128, 128)),
        critic_passes=1,
    )
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
    rows = ["| update of | CPU ms | FLOPs ÷ MLP's | time ÷ MLP's | time ÷ prediction |", "| --- |" + " ---: |" * 4]
    for part in ("world model", "policy"):
        for name, row in result[part].items():
            rows.append(
                f"| {part}: {name} | {row['cpu_ms']:.1f} | {row['flops_ratio']:.2f} | {row['time_ratio']:.2f} "
                f"| {row['time_over_prediction']:.2f} |"
            )
    solvers = ", ".join(f"{ratio:.2f} ({name})" for name, ratio in result["solver"].items())
    return "\n".join(rows) + f"\n\nSteps by torchdiffeq take this many times as long as the lean loop's: {solvers}."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=8)
    parser.add_argument("--updates", type=int, default=23, help="of each cell in a turn")
    parser.add_argument("--result", type=Path, default=RESULT)
    options = parser.parse_args()
    be_quiet()
    with tempfile.TemporaryDirectory() as folder:
        store = f"{folder}/data.h5"
        datamodules.collect(("cartpole-swingup", "cup-catch"), 8, Path(store), behaviour="noise", workers=2, seed=0)
        checkpoints = {}
        models: dict[str, list[Clock]] = {kind: [] for kind in DYNAMICS}
        for turn in range(options.turns):
            for kind in DYNAMICS:
                module, clock = world_model(kind, store, options.updates)
                models[kind].append(clock)
                if turn == 0:
                    checkpoints[kind] = f"{folder}/{kind}.ckpt"
                    module.trainer.save_checkpoint(checkpoints[kind])
        cells = [(model, actor) for model in DYNAMICS for actor in ACTORS]
        policies: dict[str, list[Clock]] = {" / ".join(cell): [] for cell in cells}
        for _ in range(options.turns):
            for cell in cells:
                policies[" / ".join(cell)].append(policy(cell, checkpoints, store, options.updates))
        result = {"world model": compare(models), "policy": compare(policies), "solver": solver(20 * options.turns)}
    options.result.parent.mkdir(parents=True, exist_ok=True)
    options.result.write_text(json.dumps(result, indent=1) + "\n")
    print(text(result))
    if options.result == RESULT:
        put(PAGE, "cost", text(result))


if __name__ == "__main__":
    main()
