"""What an update costs: floating-point operations, network evaluations, memory."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from lit_pwm.flow import Solver, VelocityField

R = TypeVar("R")


@dataclass(frozen=True)
class UpdateCost:
    """What one update costs on one rank.

    Attributes:
        flops: floating-point operations of matrix products and attention, forward and backward, as counted by torch.
        nfe: swapped part → evaluations of its network: those its velocity fields count, or else its calls.
    """

    flops: int
    nfe: dict[str, int]


class FlopCounter(TorchDispatchMode):
    """Counts floating-point operations by torch's own formulas, and changes no bit of what is computed.

    `torch.utils.flop_counter.FlopCounterMode` gives the same counts, but replaces some operations by decompositions,
    Mish's backward among them, whose results differ in the last bits.
    """

    def __init__(self) -> None:
        super().__init__()
        self.flops = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run an operation, and count it if it is one that torch has a formula for."""
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        formula = flop_registry.get(func._overloadpacket)
        if formula is not None:
            self.flops += formula(*args, **kwargs, out_val=result)
        return result


@contextmanager
def counting(parts: Mapping[str, nn.Module]) -> Generator[dict[str, int], None, None]:
    """Within the block, counts the evaluations of networks: name → calls of its velocity fields, or else of the part.

    By hooks, so that modules keep no count: one would be state that `torch.compile` guards, and each new value another
    compilation. What a CUDA graph replays calls no hook.
    """
    counts = dict.fromkeys(parts, 0)

    def counter(name: str) -> Callable[..., None]:
        def called(*_: object) -> None:
            counts[name] += 1

        return called

    handles = [
        module.register_forward_pre_hook(counter(name))
        for name, part in parts.items()
        for module in [found for found in part.modules() if isinstance(found, VelocityField)] or [part]
    ]
    try:
        yield counts
    finally:
        for handle in handles:
            handle.remove()


def decides_evaluations(part: nn.Module) -> bool:
    """Whether the part's number of evaluations depends on what it computes, as that of an adaptive solver does."""
    solvers = [getattr(module, "solver", None) for module in part.modules()]
    return any(isinstance(solver, Solver) and solver.evaluations is None for solver in solvers)


def cost_of_update(update: Callable[[], R], parts: Mapping[str, nn.Module]) -> tuple[R, UpdateCost]:
    """Run an update, forward and backward, and count what it costs; it computes what it would, but slower.

    Args:
        update: the update.
        parts: networks whose evaluations are counted.

    Returns:
        What the update returned, and its cost.
    """
    with counting(parts) as nfe, FlopCounter() as counter:
        result = update()
    return result, UpdateCost(counter.flops, nfe)


class KnownCosts:
    """What updates with one shape of batch cost, from a few that were counted.

    Where a part decides itself how often it evaluates its network, FLOPs are a constant and so many for each of its
    evaluations, which as many counted updates as there are unknowns settle; its evaluations are counted in each update.

    Args:
        varying: names of such parts.
    """

    def __init__(self, varying: Sequence[str]) -> None:
        self.varying = tuple(varying)
        self._counted: list[UpdateCost] = []

    def add(self, cost: UpdateCost) -> None:
        """An update that was counted."""
        self._counted.append(cost)

    @property
    def settled(self) -> bool:
        """Whether no more need be counted: they tell the unknowns apart, or have not differed for long."""
        unknowns = 1 + len(self.varying)
        return len(self._counted) >= 4 * unknowns or bool(
            self._counted and np.linalg.matrix_rank(self._evaluations(self._counted)) == unknowns
        )

    def of(self, nfe: Mapping[str, int]) -> UpdateCost:
        """The cost of an update in which the varying parts had these evaluations."""
        cost = UpdateCost(self._counted[0].flops, self._counted[0].nfe | dict(nfe))
        if not self.varying:
            return cost
        flops = np.array([counted.flops for counted in self._counted], float)
        (solution, *_) = np.linalg.lstsq(self._evaluations(self._counted), flops, rcond=None)
        return UpdateCost(round(float((self._evaluations([cost]) @ solution)[0])), cost.nfe)

    def _evaluations(self, costs: Sequence[UpdateCost]) -> np.ndarray:
        return np.array([[1, *(cost.nfe[name] for name in self.varying)] for cost in costs], float)


class Stopwatch:
    """Sums intervals of work on a device; a GPU is waited for only when the sum is asked for.

    On a GPU an interval is the time between two events on the current stream, because a step returns before its
    kernels have run. Elsewhere it is wall-clock.
    """

    def __init__(self, device: torch.device) -> None:
        self.device, self._sum, self._started = device, 0.0, 0.0
        self._pending: list[tuple[torch.cuda.Event, torch.cuda.Event, float]] = []
        self._begin: torch.cuda.Event | None = None

    def start(self) -> None:
        """Begin an interval."""
        if self.device.type == "cuda":
            self._begin = self._now()
        self._started = time.perf_counter()

    def stop(self, weight: float = 1.0) -> None:
        """End it; it counts `weight` times."""
        if self._begin is not None:
            self._pending.append((self._begin, self._now(), weight))
        else:
            self._sum += weight * (time.perf_counter() - self._started)

    def take(self) -> float:
        """Seconds since this was last asked for."""
        if self._pending:
            self._pending[-1][1].synchronize()
        seconds = self._sum + sum(weight * a.elapsed_time(b) / 1000 for a, b, weight in self._pending)
        self._sum, self._pending = 0.0, []
        return seconds

    def _now(self) -> torch.cuda.Event:
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self.device))
        return event


def peak_memory(device: torch.device) -> int:
    """Bytes: most memory allocated on a GPU since training started, or the process's largest resident set."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return largest if sys.platform == "darwin" else 1024 * largest


def device_name(device: torch.device) -> str:
    """The GPU's name, or the kind of device."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
