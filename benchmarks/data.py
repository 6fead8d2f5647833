"""How fast slices are read: this project's storages beside torchrl's SliceSampler in memory and a loop over h5py.

    python -m venv torchrl && torchrl/bin/pip install torch==2.13.0 torchrl==0.14.1 h5py     # an environment of its own
    python benchmarks/data.py --torchrl torchrl/bin/python                                   # about two minutes

Slices of 17 rows of 24 observation and 6 action entries, from 4,000 episodes of 500 actions (252 MB, in the page
cache), end to end to time-major tensors; one thread each. Each reader is a process of its own; they take turns, every
batch size once in a round, in an order drawn anew, so that what disturbs the machine disturbs all. Rates are medians
over rounds, ratios medians of the rounds' ratios to torchrl. `--only-table` makes the page of the committed record.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pages import DOCS, markdown, put

from datamodules import EpisodeWriter
from lit_pwm.provenance import describe_machine

HERE = Path(__file__).parent
RESULT = HERE / "results" / "data_speed.json"
PAGE = DOCS / "data_speed.md"
HORIZON, BATCH_SIZES = 16, (256, 1024)
EPISODES, ACTIONS, OBS_DIM, ACTION_DIM = 4_000, 500, 24, 6
READERS = {
    "ram": "storage: ram",
    "device": "storage: device (the CPU)",
    "memmap": "storage: memmap, warm",
    "torchrl": "torchrl {torchrl}: SliceSampler, cached, in memory",
    "h5py": "a loop over h5py {h5py}",
}


class Reader:
    """A process that draws batches when it is asked to."""

    def __init__(self, python: str, script: str, *arguments: object) -> None:
        command = [python, str(HERE / script), *map(str, arguments)]
        environment = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "RL_LOGGING_LEVEL": "ERROR"}
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        self.versions: dict[str, str] = self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        while (line := self._process.stdout.readline()) and not line.startswith("{"):
            pass  # what a library says of itself
        if not line:
            raise SystemExit(f"{self._process.args} has ended with code {self._process.wait()}.")
        return json.loads(line)

    def turn(self, batch_size: int, seconds: float) -> dict[str, Any]:
        """Slices drawn, and in how many seconds."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{batch_size} {seconds}\n")
        self._process.stdin.flush()
        return self._answer()

    def close(self) -> None:
        """Let the process end."""
        self._process.communicate()


def write_synthetic(path: Path, episodes: int = EPISODES) -> None:
    """A store of episodes of noise."""
    drawn = np.random.default_rng(0)
    with EpisodeWriter(path, tasks={"walker-walk": (OBS_DIM, ACTION_DIM)}) as writer:
        for _ in range(episodes):
            obs = drawn.standard_normal((ACTIONS + 1, OBS_DIM), np.float32)
            action = drawn.uniform(-1, 1, (ACTIONS, ACTION_DIM)).astype(np.float32)
            writer.append(task="walker-walk", obs=obs, action=action, reward=drawn.random(ACTIONS, np.float32))


def measured(store: Path, torchrl: str | None, rounds: int, seconds: float) -> dict[str, Any]:
    """Rounds of all readers."""
    readers = {
        name: Reader(sys.executable, "store_reader.py", store, HORIZON, name) for name in READERS if name != "torchrl"
    }
    if torchrl is not None:
        readers["torchrl"] = Reader(torchrl, "torchrl_reader.py", store, HORIZON)
    turns = [(name, batch_size) for name in readers for batch_size in BATCH_SIZES]
    for name, batch_size in turns:
        readers[name].turn(batch_size, 0.1)  # pages are brought to the cache, and each is warm
    found: dict[str, dict[str, list[float]]] = {name: {str(size): [] for size in BATCH_SIZES} for name in readers}
    cpu: dict[str, dict[str, list[float]]] = {name: {str(size): [] for size in BATCH_SIZES} for name in readers}
    for number in range(rounds):
        random.Random(number).shuffle(turns)
        for name, size in turns:
            turn = readers[name].turn(size, seconds)
            expected = {
                "obs": [HORIZON + 1, size, OBS_DIM], "action": [HORIZON, size, ACTION_DIM],
                "reward": [HORIZON, size], "task": [size],
            }  # fmt: skip
            if turn["shapes"] != expected:
                raise SystemExit(f"{name} has given batches of {turn['shapes']}, not {expected}.")
            found[name][str(size)].append(turn["slices"] / turn["seconds"])
            cpu[name][str(size)].append(turn["slices"] / turn["cpu_seconds"])
        print(f"round {number + 1} of {rounds}: {summary(found)}", flush=True)
    versions = {key: value for reader in readers.values() for key, value in reader.versions.items()}
    for reader in readers.values():
        reader.close()
    return {
        "machine": describe_machine(), "versions": versions, "rounds": rounds, "seconds_each": seconds,
        "slices_per_second": found, "slices_per_cpu_second": cpu,
    }  # fmt: skip


def summary(found: dict[str, dict[str, list[float]]]) -> str:
    """Medians, in thousands."""
    return ", ".join(
        f"{name} {'/'.join(f'{statistics.median(rates) / 1e3:.0f}k' for rates in sizes.values())}"
        for name, sizes in found.items()
    )


def ratio(rates: Sequence[float], reference: Sequence[float]) -> tuple[float, float, float]:
    """Median, smallest and largest of the rounds' ratios."""
    ratios = [one / other for one, other in zip(rates, reference, strict=True)]
    return statistics.median(ratios), min(ratios), max(ratios)


def table(record: dict[str, Any]) -> str:
    """Rates and ratios to torchrl's."""
    found, rows = record["slices_per_second"], []
    for name, label in READERS.items():
        if name not in found:
            continue
        cells = [label.format(**record["versions"])]
        for size in map(str, BATCH_SIZES):
            cells.append(f"{round(statistics.median(found[name][size]), -3):,.0f}")
            if "torchrl" in found:
                middle, low, high = ratio(found[name][size], found["torchrl"][size])
                cells.append("1" if name == "torchrl" else f"**{middle:.2g}** ({low:.2g} to {high:.2g})")
        rows.append(cells)
    head = ["reader"]
    for size in BATCH_SIZES:
        head += [f"slices/s, batch {size:,}", *(["× torchrl's (rounds)"] if "torchrl" in found else [])]
    return markdown(head, rows)


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--torchrl", metavar="PYTHON", help="the python of an environment that has torchrl and h5py")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=0.7, help="of each turn")
    parser.add_argument("--out", type=Path, default=RESULT, help="the record")
    parser.add_argument("--only-table", action="store_true", help="the page from the committed record")
    given = parser.parse_args(words)
    if not given.only_table:
        with tempfile.TemporaryDirectory() as folder:
            store = Path(folder) / "store.h5"
            write_synthetic(store)
            record = measured(store, given.torchrl, given.rounds, given.seconds)
        given.out.write_text(json.dumps(record, indent=1) + "\n")
    record = json.loads(given.out.read_text())
    print(table(record))
    if given.out == RESULT:
        put(PAGE, "speed", table(record))


if __name__ == "__main__":
    main()
