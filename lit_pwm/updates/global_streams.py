"""What an update draws from the global random generators: a function of the seed and the update, and named."""

from __future__ import annotations

import sys
from collections.abc import Generator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from types import FrameType
from typing import Any

import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from lit_pwm.models.component import Component
from lit_pwm.runtime.random_states import RandomStates


class GlobalStreams:
    """Python's, numpy's and torch's global generators while updates are made.

    Components that declare their noise are given it and draw nothing here. For others, such as dropout in somebody's
    own dynamics, the generators are seeded for each update and put back after it, so that what they draw depends on the
    seed, the update and the rank alone: neither validation nor diagnostics move it, and a resumed run draws it again.
    Who draws is looked for in the first update of a run and named once.
    """

    def __init__(self) -> None:
        self._start: RandomStates | None = None
        self._has_looked = False
        self._drawers: set[str] = set()

    @contextmanager
    def seeded(self, seed: int, device: torch.device, watched: bool = False) -> Generator[None, None, None]:
        """A block in which the generators are seeded; after it they are as before.

        Args:
            seed: of the update, up to 63 bits.
            device: whose generator is seeded with those of the host.
            watched: whether `drew` is asked in the block, as of several ranks.
        """
        before, is_first = RandomStates.now(device), not self._has_looked
        RandomStates.seed(seed, device)
        self._start = RandomStates.now(device) if watched or is_first else None
        looking: AbstractContextManager[object] = _Looking(self._drawers) if is_first else nullcontext()
        try:
            with looking:
                yield
            self._has_looked = True
            if is_first and self.drew():
                rank_zero_info(
                    f"{self.drawers()} draws from a global random generator within an update. On one device that is "
                    f"repeatable; on several it is refused. A component that declares its noise (noise_shape) is "
                    f"given it, and may be trained on any number."
                )
        finally:
            before.restore()
            self._start = None

    def drew(self) -> bool:
        """Whether anything was drawn since the block began; False outside of one."""
        return self._start is not None and self._start != RandomStates.now(self._start.device)

    def drawers(self) -> str:
        """Who drew in the first update, by class."""
        return ", ".join(sorted(self._drawers)) or "Something in the update"


class _Looking(TorchDispatchMode):
    """Notes which component each random operation without a generator of its own belongs to."""

    def __init__(self, found: set[str]) -> None:
        super().__init__()
        self.found = found

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if torch.Tag.nondeterministic_seeded in func.tags and kwargs.get("generator") is None:
            self.found.add(_owner(sys._getframe(1)))
        return func(*args, **kwargs)


def _owner(frame: FrameType | None) -> str:
    """The innermost component among the callers' `self`, or the innermost module, as MODULE.CLASS."""
    innermost = None
    while frame is not None:
        caller = frame.f_locals.get("self")
        if isinstance(caller, Component):
            return _name(caller)
        if innermost is None and isinstance(caller, nn.Module):
            innermost = caller
        frame = frame.f_back
    return "Something in the update" if innermost is None else _name(innermost)


def _name(module: nn.Module) -> str:
    return f"{type(module).__module__}.{type(module).__qualname__}"
