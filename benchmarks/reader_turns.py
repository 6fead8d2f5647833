"""Turns of readers that wait for each other in processes of their own, so that what disturbs one disturbs all."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any

Drawer = Callable[[int], Callable[[], Any]]
"""Batch size → what draws a batch."""


def answer_turns(drawer: Drawer) -> None:
    """Answer each line "BATCH_SIZE SECONDS" of the standard input: draw batches for so long, and say how many slices.

    A batch size is met with a few batches that do not count first.
    """
    drawers: dict[int, Callable[[], Any]] = {}
    for line in sys.stdin:
        batch_size, seconds = int(line.split()[0]), float(line.split()[1])
        if batch_size not in drawers:
            drawers[batch_size] = drawer(batch_size)
            for _ in range(3):
                drawers[batch_size]()
        draw, count, began, cpu = drawers[batch_size], 0, time.perf_counter(), time.process_time()
        while (passed := time.perf_counter() - began) < seconds:
            batch = draw()
            count += batch["obs"].shape[1]
        shapes = {name: list(batch[name].shape) for name in ("obs", "action", "reward", "task")}
        cpu = time.process_time() - cpu
        print(json.dumps({"slices": count, "seconds": passed, "cpu_seconds": cpu, "shapes": shapes}), flush=True)
