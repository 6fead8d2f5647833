"""Parameter groups, learning-rate schedules, and copies that follow slowly."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.core.optimizer import LightningOptimizer
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from lit_pwm.errors import LitPWMError


def check_each_parameter_once(module: nn.Module, *optimizers: torch.optim.Optimizer) -> None:
    """Make sure that the optimizers together hold every parameter of `module` exactly once.

    Raises:
        LitPWMError: a parameter is in no group, or in more than one.
    """
    held: dict[int, int] = {}
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                held[id(parameter)] = held.get(id(parameter), 0) + 1
    wrong = [f"{name} ({held.get(id(p), 0)}×)" for name, p in module.named_parameters() if held.get(id(p), 0) != 1]
    if wrong:
        raise LitPWMError(
            f"Each parameter must belong to exactly one optimizer group, but these of {type(module).__name__} do not: "
            f"{', '.join(wrong)}. Register the component's parameters under the part of the model they belong to."
        )


def parameters_of(optimizer: torch.optim.Optimizer | LightningOptimizer) -> Iterator[nn.Parameter]:
    """All parameters that the optimizer holds."""
    for group in optimizer.param_groups:
        yield from group["params"]


@torch.no_grad()
def follow_(slow: nn.Module, fast: nn.Module, rate: float) -> None:
    """Soft update of a slow copy, a target network or an average (EMA, Polyak average): slow += rate · (fast − slow).

    Args:
        slow: the copy, whose parameters move; buffers do not.
        fast: the trained network.
        rate: τ of a target network, 1 − decay of an EMA; 1 copies.
    """
    torch._foreach_lerp_(*_pairs(slow, fast), rate)


@torch.no_grad()
def interpolated(slow: nn.Module, fast: nn.Module, rate: float) -> Sequence[Tensor]:
    """What `follow_`, the soft update, would make of the slow copy's parameters that have entries, in their order."""
    return torch._foreach_lerp(*_pairs(slow, fast), rate)


def _pairs(slow: nn.Module, fast: nn.Module) -> tuple[list[Tensor], list[Tensor]]:
    pairs = [(a, b) for a, b in zip(slow.parameters(), fast.parameters(), strict=True) if a.numel()]
    return [a for a, _ in pairs], [b for _, b in pairs]


def warmup_cosine(total_steps: int, warmup_steps: int, final_fraction: float) -> Callable[[int], float]:
    """Learning-rate factor: linear warm-up, then a cosine from 1 to `final_fraction` (1 keeps it constant)."""

    def factor(step: int) -> float:
        if step < warmup_steps:
            return (step + 1) / warmup_steps
        progress = min(1.0, (step - warmup_steps) / max(1, total_steps - warmup_steps))
        return final_fraction + (1 - final_fraction) * 0.5 * (1 + math.cos(math.pi * progress))

    return factor


def linear_decay(total_steps: int, first: float, last: float) -> Callable[[int], float]:
    """Learning-rate factor that takes a rate from `first` to `last` linearly over `total_steps` (PWM); 0 stays 0."""

    def factor(step: int) -> float:
        return 1 + (last / first - 1 if first else 0) * min(1.0, step / max(1, total_steps))

    return factor


def planned_updates(module: LightningModule) -> int:
    """How many updates this run is to make, for schedules; at least one.

    Raises:
        LitPWMError: the run has no end.
    """
    updates = module.trainer.estimated_stepping_batches
    if not math.isfinite(updates):
        raise LitPWMError(
            "The learning-rate schedule needs to know how long the run is, but neither max_steps nor max_epochs limits "
            "it. Set trainer.max_steps to the number of updates."
        )
    return max(1, int(updates))


def settings_of(optimizers: list[torch.optim.Optimizer]) -> list[list[dict[str, object]]]:
    """The options of each optimizer's groups, without parameters and state: what this run's config asked for."""
    return [[{k: v for k, v in group.items() if k != "params"} for group in opt.param_groups] for opt in optimizers]


def apply_settings(
    settings: list[list[dict[str, Any]]], optimizers: list[torch.optim.Optimizer], schedulers: list[LambdaLR]
) -> None:
    """Let this run's options win over those that a resumed checkpoint brought back with the optimizer states.

    Moments and the schedules' positions are the checkpoint's; learning rates, betas, weight decay and the schedules'
    shapes are this run's. Without it a changed learning rate would be ignored silently.
    """
    for groups, optimizer, scheduler in zip(settings, optimizers, schedulers, strict=True):
        if not isinstance(scheduler, LambdaLR):
            raise LitPWMError(
                f"A callback has put a {type(scheduler).__name__} in the place of this module's schedule of learning "
                f"rates (LearningRateFinder does), which it follows itself. Remove the callback from trainer.callbacks."
            )
        scheduler.base_lrs = [group["initial_lr"] for group in groups]
        factors = [factor(scheduler.last_epoch) for factor in scheduler.lr_lambdas]
        for wanted, group, factor in zip(groups, optimizer.param_groups, factors, strict=True):
            group.update(wanted | {"lr": wanted["initial_lr"] * factor})


def logs_now(module: LightningModule) -> bool:
    """Whether Lightning writes what is logged at this update; at others `self.log` would only cost its milliseconds.

    Never where `log_every_n_steps` is 0, as Lightning understands it.
    """
    every = cast("Any", module.trainer).log_every_n_steps
    return bool(every) and module.global_step % every == 0
