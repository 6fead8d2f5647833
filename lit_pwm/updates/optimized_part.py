"""The optimizers of a module under manual optimisation: steps that reduce, clip, project and count rightly."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, cast

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.strategies import ParallelStrategy
from torch import Tensor, nn

from lit_pwm.models.layers import Constrained
from lit_pwm.optim import parameters_of

Rates = Mapping[str, float | Tensor]
"""Name of a parameter group → its learning rate."""


class OptimizedPart:
    """One of a module's optimizers, with all that would otherwise be looked for at every step.

    Args:
        module: whose optimizer it is.
        name: what it optimises, such as `actor`.
        optimizer: torch's own.
        clip_norm: largest global norm of the (reduced) gradient.
        leads: whether its steps are those that Lightning's callbacks hear of (`on_before_optimizer_step`); one
            optimizer of a module leads.

    Attributes:
        parameters: those that are trained: all that the optimizer holds, or those of the groups that `open` named.
        names: of the groups that `open` named; None before.
        constrained: the constrained parts that hold any of them; a frozen network beside them keeps its bits.
    """

    def __init__(
        self,
        module: LightningModule,
        name: str,
        optimizer: torch.optim.Optimizer,
        clip_norm: float,
        leads: bool = False,
    ) -> None:
        self._module, self.name, self.optimizer, self.clip_norm, self.leads = module, name, optimizer, clip_norm, leads
        self.names: frozenset[str] | None = None
        self._take(list(parameters_of(optimizer)))

    def open(self, names: Collection[str]) -> None:
        """From now on train the groups of these names alone; the others keep their weights and moments."""
        if frozenset(names) == self.names:
            return
        self.names = frozenset(names)
        self._take([p for group in self.optimizer.param_groups if group["name"] in names for p in group["params"]])

    def _take(self, parameters: list[nn.Parameter]) -> None:
        self.parameters = parameters
        held = {id(parameter) for parameter in parameters}
        self.constrained = [
            part
            for part in self._module.modules()
            if isinstance(part, Constrained) and any(id(parameter) in held for parameter in part.parameters())
        ]

    @property
    def can_be_gated(self) -> bool:
        """Whether a flag on the device can hold back its step, as that of a fused optimizer under AMP."""
        return bool(getattr(self.optimizer, "_step_supports_amp_scaling", False))

    def state_tensors(self) -> Iterator[Tensor]:
        """The tensors of the optimizer's states of what is trained."""
        for parameter in self.parameters:
            state = self.optimizer.state.get(parameter, {})
            yield from (value for value in state.values() if isinstance(value, Tensor))

    def create_states(self) -> None:
        """Give the states that the first step would make their places now; no weight moves.

        A step without effect makes them, which only optimizers that can be gated have; others make theirs when they
        first step.
        """
        new = [
            parameter for parameter in self.parameters if parameter.numel() and not self.optimizer.state.get(parameter)
        ]
        if not new or not self.can_be_gated:
            return
        kept = [(parameter, parameter.grad) for parameter in self.parameters]
        for parameter in self.parameters:
            parameter.grad = None
        for parameter in new:
            parameter.grad = torch.zeros_like(parameter)
        self._step(torch.ones((), device=new[0].device), hooks=False)
        for parameter, gradient in kept:
            parameter.grad = gradient

    def set_rates(self, rates: Rates | None) -> None:
        """Let each group step with the learning rate under its name; others keep those that the schedules set."""
        for group in self.optimizer.param_groups:
            group["lr"] = (rates or {}).get(group["name"], group["lr"])

    def compute_gradients(self, loss: Tensor) -> Tensor:
        """Backward, one flat gradient reduction over ranks, clipping.

        DistributedDataParallel's own reduction is blocked, because with several optimizers it would reduce every
        gradient of the module on every backward.

        Args:
            loss: scalar.

        Returns:
            The gradient's norm before clipping, over all ranks. Whether it is finite is for
            `lit_pwm.updates.atomic_update` to say.
        """
        self.optimizer.zero_grad(set_to_none=True)
        # Nobody else's gradients: see `lit_pwm.runtime.casts.cached_casts`.
        if self._module._trainer is None:
            loss.backward(inputs=self.parameters)
        else:
            with _without_automatic_reduction(self._module):
                self._module.manual_backward(loss, inputs=self.parameters)
        _reduce_gradients(self.parameters)
        return nn.utils.clip_grad_norm_(self.parameters, self.clip_norm).detach()

    def step(self, found_inf: Tensor | None = None) -> None:
        """Step by the gradients that are there, and project the constrained weights.

        Args:
            found_inf: scalar, 1 to hold the step back on the device; only where `can_be_gated`.
        """
        self._step(found_inf, hooks=self.leads and self._module._trainer is not None)
        for part in self.constrained:
            part.constrain_()

    def _step(self, found_inf: Tensor | None, hooks: bool) -> None:
        optimizer = cast("Any", self.optimizer)
        if found_inf is not None:
            optimizer.found_inf = found_inf
        try:
            if hooks:
                self._module.trainer.strategy.optimizer_step(optimizer, lambda: None)
            else:
                optimizer.step()
        finally:
            if found_inf is not None:
                del optimizer.found_inf


def rates_of(parts: Iterable[OptimizedPart]) -> Rates:
    """The learning rates that the schedules have set, by the name of the group."""
    return {group["name"]: group["lr"] for part in parts for group in part.optimizer.param_groups}


def count_update(module: LightningModule) -> None:
    """Let Lightning count one global step: an update, however many steps its optimizers made.

    Lightning counts in `LightningOptimizer.step`, which this module's updates pass by.
    """
    found = module.optimizers()
    optimizer = cast("LightningOptimizer", found[0] if isinstance(found, list) else found)
    optimizer._on_before_step()
    optimizer._on_after_step()


def _without_automatic_reduction(module: LightningModule) -> AbstractContextManager[object]:
    strategy = module.trainer.strategy
    if isinstance(strategy, ParallelStrategy):
        return cast("AbstractContextManager[Any]", strategy.block_backward_sync())
    return nullcontext()


def _reduce_gradients(parameters: list[nn.Parameter]) -> None:
    """Average the gradients over ranks by one all-reduce of one flat buffer."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    torch.distributed.all_reduce(flat)
    flat /= torch.distributed.get_world_size()
    start = 0
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = flat[start : start + gradient.numel()].view_as(gradient)
        start += gradient.numel()
