"""Batches that are made ahead of the one in use, by a thread of the same process."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar, cast

from lit_pwm.batch import Batch

T = TypeVar("T")


def made_ahead(make: Callable[[int], T], steps: Iterable[int], depth: int) -> Generator[T, None, None]:
    """What `make` returns for each step, in order, up to `depth` of them made before they are asked for.

    A thread costs no copy to another process, and gathering rows leaves the interpreter to others most of the time. An
    error comes where the batch would have come. The thread ends with the iteration, at the latest when the iterator is
    closed, which waits for the batch in the making.

    Args:
        make: step → a batch.
        steps: the steps.
        depth: batches made ahead; 0 makes each when it is asked for, in the caller's thread.
    """
    if depth == 0:
        yield from map(make, steps)
        return
    coming = iter(steps)
    with ThreadPoolExecutor(1, thread_name_prefix="batches") as thread:
        waiting = deque(thread.submit(make, step) for step in itertools.islice(coming, depth))
        try:
            while waiting:
                batch = waiting.popleft().result()
                waiting.extend(thread.submit(make, step) for step in itertools.islice(coming, 1))
                yield batch
        finally:
            thread.shutdown(cancel_futures=True)


def pinned(batch: Batch) -> Batch:
    """A batch in page-locked memory, from which it can be copied to a GPU while that works."""
    parts = cast("dict[str, Any]", batch)
    copies = {name: pinned(part) if isinstance(part, dict) else part.pin_memory() for name, part in parts.items()}
    return cast("Batch", copies)
