"""How long a consumer waits for slices, for `data_waiting.py`: prints a line of JSON for each part.

python waiting_reader.py STORE [GROUP]      # GROUP: the folder of a memory control group to join first
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from datamodules import EpisodeStore, MultitaskDataModule
from lit_pwm.batch import Batch
from lit_pwm.cli import trainer as command
from lit_pwm.runtime.processes import keep_freed_memory

ROOT = Path(__file__).resolve().parents[1]
STEP = 0.006
BATCHES, UPDATES, SECONDS = 500, 20, 12.0
"""Of each part: batches of the consumers that compute nothing, updates, and how long it may take at most."""


def anonymous() -> float:
    """Private memory of this process in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("RssAnon")).split()[1]) / 1000


def forget(path: str) -> None:
    """Take a file's pages out of the page cache."""
    with open(path, "rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def read_once(path: str) -> None:
    """Bring as much of a file to the page cache as there is room for."""
    with open(path, "rb", buffering=0) as file:
        while file.read(2**24):
            pass


def waiting(path: str, prefetch: int, consume: Callable[[Batch], object], count: int, seed: int) -> dict[str, float]:
    """Share of the time that a consumer waits, and slices per second that it gets."""
    data = MultitaskDataModule(
        path, horizon=16, batch_size=256, batches_per_epoch=count, val_fraction=0, prefetch=prefetch, seed=seed
    )
    data.setup()
    batches, waited = iter(data.train_dataloader()), []
    began = time.perf_counter()
    while len(waited) < count and time.perf_counter() - began < SECONDS:
        asked = time.perf_counter()
        batch = next(batches)
        waited.append(time.perf_counter() - asked)
        consume(batch)
    total = time.perf_counter() - began
    del batches  # ends the thread
    # The first batch is waited for in any case.
    return {
        "share": sum(waited[1:]) / total,
        "slices_per_second": len(waited) * 256 / total,
        "batches": len(waited),
        "rss_anon_mb": anonymous(),
    }


def training_step(path: str) -> Callable[[Batch], object]:
    """An update of a world model of 5 M parameters as pre-training makes it on this CPU: forward, backward, Adam."""
    configs = ["--config", ROOT / "configs" / "pretrain.yaml", "--config", ROOT / "configs" / "world_model/mlp_5m.yaml"]
    options: list[object] = ["--data.store", path, "--trainer.logger", "false", "--trainer.accelerator", "cpu"]
    options += ["--trainer.devices", 1, "--trainer.callbacks", "null", "--trainer.max_steps", 1]
    options += ["--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false"]
    options += ["--trainer.limit_val_batches", 0, "--trainer.default_root_dir"]
    with tempfile.TemporaryDirectory() as folder:
        module = command.build(["fit", *map(str, [*configs, *options, folder])]).model
    return lambda batch: module.update(batch, module.update_noise(batch))


def main(path: str, group: str | None) -> None:
    """All parts."""
    if group is not None:
        (Path(group) / "cgroup.procs").write_text(str(os.getpid()))
    keep_freed_memory()
    EpisodeStore(path)  # the table of episodes; its rows stay on the disk
    step = training_step(path)
    consumers: list[tuple[str, Callable[[Batch], object], int]] = [
        ("6 ms", lambda _: time.sleep(STEP), BATCHES), ("5 M", step, UPDATES), ("none", lambda _: None, BATCHES),
    ]  # fmt: skip
    for seed, cache in enumerate(("cold", "warm")):
        if cache == "warm":
            read_once(path)
        for consumer, consume, count in consumers:
            for prefetch in (0, 2):
                if cache == "cold":
                    forget(path)
                found = waiting(path, prefetch, consume, count, 2 * seed + prefetch)
                print(json.dumps({"consumer": consumer, "cache": cache, "prefetch": prefetch, **found}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else None)
