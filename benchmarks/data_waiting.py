"""How long training waits for data that is larger than its memory: a store of 6 GB where 4 GB are allowed.

    sudo python benchmarks/data_waiting.py        # about eight minutes, and 12 GB of disk while it is written

The reader runs in a memory control group of its own with a limit of 4 GB, in which the page cache counts, and once
more without one, where all of the store is in the page cache. Cold: its pages were taken out of the cache before; warm:
the file was read once before, as far as there is room. A consumer takes 256 slices of 17 rows every 6 ms, as the step
of a GPU does; another makes the update of a world model of 5 M parameters on this CPU; the third does nothing. Waiting
is the share of the whole time in which a consumer waits for a batch, from the second batch on.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from data import HERE, PAGE
from memory_group import memory_group
from pages import markdown, put

from datamodules import EpisodeWriter
from lit_pwm.provenance import describe_machine

RESULT = HERE / "results" / "data_waiting.json"
LIMIT = 4 * 10**9
OBS_DIM, ACTION_DIM, ACTIONS, NOISES = 48, 12, 500, 64


def write_large(path: Path, gigabytes: float) -> None:
    """A store of so many GB; episodes of noise, of which one entry is each's own."""
    drawn = np.random.default_rng(0)
    obs = drawn.standard_normal((NOISES, ACTIONS + 1, OBS_DIM), np.float32)
    action = drawn.uniform(-1, 1, (NOISES, ACTIONS, ACTION_DIM)).astype(np.float32)
    count = round(gigabytes * 1e9 / ((ACTIONS + 1) * (4 * (OBS_DIM + ACTION_DIM + 1) + 1)))
    with EpisodeWriter(path, tasks={"walker-walk": (OBS_DIM, ACTION_DIM)}) as writer:
        for number in range(count):
            place = number % NOISES
            obs[place, 0, 0] = number
            writer.append(task="walker-walk", obs=obs[place], action=action[place], reward=obs[place, 1:, 0])


def measured(store: Path, group: Path | None) -> list[dict[str, Any]]:
    """The parts of a reader in a group."""
    command = [sys.executable, str(HERE / "waiting_reader.py"), str(store), *([] if group is None else [str(group)])]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def table(record: dict[str, Any]) -> str:
    """Waiting and rates of all parts."""
    head = ["memory", "cache", "consumer", "waiting without prefetch", "with `prefetch: 2`", "slices/s", "RssAnon, MB"]
    rows = []
    for memory, parts in record["parts"].items():
        pairs = zip(parts[::2], parts[1::2], strict=True)
        for without, ahead in pairs:
            shares = ["–" if part["consumer"] == "none" else f"{part['share']:.1%}" for part in (without, ahead)]
            rates = f"{without['slices_per_second']:,.0f} and {ahead['slices_per_second']:,.0f}"
            rows.append([memory, ahead["cache"], ahead["consumer"], *shares, rates, f"{ahead['rss_anon_mb']:,.0f}"])
    return markdown(head, rows, left=(0, 1, 2)).replace("\\`", "`")


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", type=Path, help="a store that is there, instead of one that is written")
    parser.add_argument("--gigabytes", type=float, default=6.0)
    parser.add_argument("--folder", type=Path, help="where the store is written; a temporary folder if not given")
    parser.add_argument("--out", type=Path, default=RESULT, help="the record")
    parser.add_argument("--only-table", action="store_true", help="the page from the committed record")
    given = parser.parse_args(words)
    if not given.only_table:
        parts: dict[str, list[dict[str, Any]]] = {}
        with tempfile.TemporaryDirectory(dir=given.folder) as folder, memory_group(LIMIT) as group:
            store = given.store or Path(folder) / "store.h5"
            if given.store is None:
                write_large(store, given.gigabytes)
            size = store.stat().st_size
            if group is None:
                print("No memory control group may be made here: only without a limit.")
            else:
                parts["limit of 4 GB"] = measured(store, group)
            parts["no limit"] = measured(store, None)
        record = {"machine": describe_machine(), "store_bytes": size, "limit": LIMIT, "parts": parts}
        given.out.write_text(json.dumps(record, indent=1) + "\n")
    record = json.loads(given.out.read_text())
    print(table(record))
    if given.out == RESULT:
        put(PAGE, "waiting", table(record))


if __name__ == "__main__":
    main()
