"""What CUDA graphs save: time of whole updates of both modules, as a Trainer makes them, with the callback and without.

    python benchmarks/cuda_graphs_speed.py                    # about three minutes on an H200

Networks and batches are those of configs/ (256 slices of 16 transitions; 512 rollouts of 16 steps, 8 passes of the
critics in 4 minibatches); data is random, of 30 tasks. A time is the median over the updates of a run (of one for each
turn, with and without alternating), each waited for.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from flow_cost import arguments
from lightning.pytorch import Callback, LightningModule, Trainer
from pages import DOCS, markdown, put

import callbacks
import datamodules
from lit_pwm import PolicyLearning, WorldModelPretraining
from lit_pwm.experiments.training import be_quiet

RESULT = Path(__file__).parent / "results" / "cuda_graphs.json"
WORLD_MODELS, CELLS = ("mlp", "flow", "refinement"), ("mlp / mlp", "mlp / flow", "flow / mlp", "flow / flow")
SKIPPED = 4
"""First updates of a run, which are not timed: warming up, recording."""


class Times(Callback):
    """Seconds of each update."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self._started = 0.0

    def on_train_batch_start(self, *_: object, **__: object) -> None:
        """Wait for what was before, and start the clock."""
        torch.cuda.synchronize()
        self._started = time.perf_counter()

    def on_train_batch_end(self, *_: object, **__: object) -> None:
        """Wait for the update, and stop the clock."""
        torch.cuda.synchronize()
        self.seconds.append(time.perf_counter() - self._started)


def write_data(path: Path) -> None:
    rng = np.random.default_rng(0)
    tasks = {f"task-{i}": (24, 6) for i in range(30)}
    with datamodules.EpisodeWriter(path, tasks=tasks) as writer:
        for task in tasks:
            for _ in range(4):
                action, obs = rng.uniform(-1, 1, (100, 6)), rng.standard_normal((101, 24)).cumsum(0) / 5
                writer.append(task=task, obs=obs, action=action, reward=np.abs(action[:, 0]), source="random")


def run(
    module: LightningModule, store: Path, batch: int, graphs: bool, precision: str, updates: int
) -> tuple[list[float], Trainer]:
    """Seconds of each update, and the trainer."""
    times = Times()
    trainer = Trainer(
        accelerator="gpu", devices=1, precision=cast("Any", precision), max_steps=updates, max_epochs=-1,
        limit_val_batches=0, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, log_every_n_steps=10**9,
        callbacks=[times, *([callbacks.CUDAGraphs()] if graphs else [])],
    )  # fmt: skip
    data = datamodules.MultitaskDataModule(store=str(store), horizon=16, batch_size=batch, seed=0)
    trainer.fit(module, datamodule=data)
    return times.seconds[SKIPPED:], trainer


def pretraining(kind: str, size: str) -> WorldModelPretraining:
    torch.manual_seed(0)
    return WorldModelPretraining(**arguments(f"world_model/{kind}_{size}.yaml"))


def policy(actor: str, checkpoint: str) -> PolicyLearning:
    torch.manual_seed(0)
    return PolicyLearning(checkpoint, **{**arguments("policy_learning.yaml"), **arguments(f"policy/{actor}.yaml")})


def measure(size: str, precision: str, turns: int, updates: int, folder: Path) -> list[dict[str, Any]]:
    """Each module's times with and without graphs."""
    store, rows = folder / "data.h5", []
    seconds: dict[tuple[str, str, bool], list[float]] = {}
    for _ in range(turns):
        for graphs in (False, True):
            for kind in WORLD_MODELS:
                found, trainer = run(pretraining(kind, size), store, 256, graphs, precision, updates)
                seconds.setdefault(("world model", kind, graphs), []).extend(found)
                trainer.save_checkpoint(folder / f"{kind}.ckpt")
            for cell in CELLS:
                kind, actor = cell.split(" / ")
                found, _ = run(policy(actor, str(folder / f"{kind}.ckpt")), store, 512, graphs, precision, updates)
                seconds.setdefault(("policy", cell, graphs), []).extend(found)
    for part, name, graphs in seconds:
        if graphs:
            plain, graphed = (1e3 * statistics.median(seconds[part, name, flag]) for flag in (False, True))
            rows.append({
                "size": size, "precision": precision, "update": f"{part}: {name}", "plain_ms": plain,
                "graphs_ms": graphed, "gain": plain / graphed,
            })  # fmt: skip
            print(text(rows[-1:]).splitlines()[-1], flush=True)
    return rows


def text(rows: list[dict[str, Any]]) -> str:
    """The table of times."""
    head = ("size", "precision", "update of", "ms", "ms with graphs", "gain")
    numbers = [[f"{row[name]:.1f}" for name in ("plain_ms", "graphs_ms", "gain")] for row in rows]
    words = [[row[name] for name in ("size", "precision", "update")] for row in rows]
    return markdown(head, [a + b for a, b in zip(words, numbers, strict=True)], left=range(3))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="*", default=["5m", "48m"])
    parser.add_argument("--precisions", nargs="*", default=["32-true", "bf16-mixed"])
    parser.add_argument("--turns", type=int, default=1)
    parser.add_argument("--updates", type=int, default=20)
    parser.add_argument("--result", type=Path, default=RESULT)
    options = parser.parse_args()
    be_quiet()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        write_data(Path(folder) / "data.h5")
        for precision in options.precisions:
            for size in options.sizes:
                rows += measure(size, precision, options.turns, options.updates, Path(folder))
    options.result.parent.mkdir(parents=True, exist_ok=True)
    record = {"device": torch.cuda.get_device_name(), "torch": torch.__version__, "rows": rows}
    options.result.write_text(json.dumps(record, indent=1) + "\n")
    if options.result == RESULT:
        put(DOCS / "gpu.md", "graphs", text(rows))


if __name__ == "__main__":
    main()
