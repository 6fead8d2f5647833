"""What two ranks of DDP hold of one mapped store: its pages in the page cache, which are the same ones for both.

    python benchmarks/shared_pages.py        # about a minute, and 2 GB of disk while the store of 1 GB is written

Two ranks train on the CPU with `storage: memmap` until each has drawn three times as many rows as the store has.
Both then say, while the other still has the file mapped, what the kernel counts of its mappings (`/proc/PID/smaps`) and
of all of its memory (`smaps_rollup`). Pss is a process's share of pages that several have: of two that share all,
half of Rss.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import lightning.pytorch as pl
import torch
from data import HERE, PAGE
from data_waiting import write_large
from lightning.pytorch.callbacks import Callback
from pages import markdown, put

from datamodules import MultitaskDataModule
from lit_pwm.batch import Batch
from lit_pwm.provenance import describe_machine

RESULT = HERE / "results" / "shared_pages.json"
GIGABYTES, RANKS, STEPS = 1.0, 2, 3000
COUNTED = ("Rss", "Pss", "Anonymous")


def counted(path: Path, mapped: str | None = None) -> dict[str, float]:
    """What the kernel counts of a process's memory in MB, of mappings of one file alone if it is given."""
    totals, taken = dict.fromkeys(COUNTED, 0.0), mapped is None
    for line in path.read_text().splitlines():
        name, *rest = line.split()
        if not name.endswith(":"):
            taken = mapped is None or line.endswith(mapped)
        elif taken and name[:-1] in totals:
            totals[name[:-1]] += int(rest[0]) / 1000
    return totals


class Saying(Callback):
    """At the end, when all ranks have arrived, a line of JSON of each."""

    def __init__(self, store: str) -> None:
        self._store = store

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Count while all ranks have the file mapped."""
        trainer.strategy.barrier()
        process = Path("/proc/self")
        found = {"store": counted(process / "smaps", self._store), "process": counted(process / "smaps_rollup")}
        line = json.dumps({"rank": trainer.global_rank, **found})
        os.write(sys.stdout.fileno(), f"{line}\n".encode())  # at once: ranks share the pipe
        trainer.strategy.barrier()


class Reading(pl.LightningModule):
    """A module whose step costs next to nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)

    def training_step(self, batch: Batch) -> torch.Tensor:
        """Uses one number of the batch."""
        return self.layer(batch["reward"].mean().view(1, 1)).mean()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Any."""
        return torch.optim.SGD(self.parameters(), 1e-3)


def train(store: str) -> None:
    """One rank's run; the first one starts the other."""
    data = MultitaskDataModule(store, horizon=16, batch_size=256, batches_per_epoch=STEPS, val_fraction=0)
    trainer = pl.Trainer(
        accelerator="cpu", devices=RANKS, strategy="ddp", max_steps=STEPS, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, callbacks=[Saying(store)],
    )  # fmt: skip
    trainer.fit(Reading(), data)


def table(record: dict) -> str:
    """A row for each rank."""
    rows = [
        [f"{part['rank']}", *(f"{part[what][name]:,.0f}" for what in ("store", "process") for name in COUNTED)]
        for part in record["ranks"]
    ]
    head = ["rank", *(f"{of}: {name}, MB" for of in ("store's pages", "process") for name in COUNTED)]
    return markdown(head, rows)


def main() -> None:
    """Write the store, run the ranks, keep what they say."""
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "store.h5"
        write_large(store, GIGABYTES)
        size = store.stat().st_size
        done = subprocess.run([sys.executable, __file__, str(store)], stdout=subprocess.PIPE, text=True, check=True)
    ranks = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    ranks.sort(key=lambda part: part["rank"])
    record = {"machine": describe_machine(), "store_bytes": size, "ranks": ranks}
    RESULT.write_text(json.dumps(record, indent=1) + "\n")
    print(table(record))
    put(PAGE, "shared", table(record))


if __name__ == "__main__":
    train(sys.argv[1]) if len(sys.argv) > 1 else main()
