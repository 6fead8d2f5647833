"""Optimizer steps that count and reduce rightly under manual optimisation, parameter groups, and schedules."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any, cast

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.strategies import ParallelStrategy
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from lit_pwm.errors import LitPWMError
from lit_pwm.models.layers import Constrained
from lit_pwm.models.world_model import WorldModel


def world_model_groups(world_model: WorldModel, lr: float, encoder_lr_scale: float) -> list[dict[str, Any]]:
    """Named parameter groups that hold every parameter of the world model exactly once.

    Args:
        world_model: the model to be optimised.
        lr: learning rate of everything but the encoder.
        encoder_lr_scale: the encoder's learning rate as a fraction of `lr` (TD-MPC2: 0.3).
    """
    return [
        {"name": "encoder", "params": list(world_model.encoder.parameters()), "lr": lr * encoder_lr_scale},
        {"name": "dynamics", "params": list(world_model.dynamics.parameters()), "lr": lr},
        {"name": "reward", "params": list(world_model.reward_head.parameters()), "lr": lr},
        {"name": "task_embedding", "params": list(world_model.task_embedding.parameters()), "lr": lr},
    ]


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


def compute_gradients(module: LightningModule, optimizer: LightningOptimizer, loss: Tensor, clip_norm: float) -> Tensor:
    """Backward, one flat gradient reduction over ranks, clipping.

    DistributedDataParallel's own reduction is blocked, because with several optimizers it would reduce every gradient
    of the module on every backward.

    Args:
        module: the module whose `training_step` this is.
        optimizer: holds the parameters that get gradients.
        loss: scalar.
        clip_norm: largest global norm of the (reduced) gradient.

    Returns:
        The gradient's norm before clipping, over all ranks. Whoever steps makes sure that it is finite
        (`lit_pwm.atomic_update`).
    """
    parameters = list(parameters_of(optimizer))
    optimizer.zero_grad(set_to_none=True)
    with _without_automatic_reduction(module):
        module.manual_backward(loss)
    _reduce_gradients(parameters)
    return nn.utils.clip_grad_norm_(parameters, clip_norm).detach()


def take_step(module: LightningModule, optimizer: LightningOptimizer, ticks: bool = True) -> None:
    """Optimizer step by the gradients that are there, and projection of constrained weights.

    Lightning counts a global step for each `LightningOptimizer.step`; with `ticks` off the wrapped optimizer is stepped
    instead, so that exactly one optimizer of a module counts updates.

    Args:
        module: the module whose `training_step` this is.
        optimizer: holds the parameters to move.
        ticks: whether this step advances `trainer.global_step`.
    """
    if ticks:
        optimizer.step()
    else:
        optimizer.optimizer.step()
    _constrain_moved(module, list(parameters_of(optimizer)))


def _constrain_moved(module: nn.Module, parameters: list[nn.Parameter]) -> None:
    """Project the constrained parts that hold any of `parameters`; a frozen network beside them keeps its bits."""
    moved = {id(parameter) for parameter in parameters}
    for part in module.modules():
        if isinstance(part, Constrained) and any(id(parameter) in moved for parameter in part.parameters()):
            part.constrain_()


def _without_automatic_reduction(module: LightningModule) -> AbstractContextManager[Any]:
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


@torch.no_grad()
def follow_(slow: nn.Module, fast: nn.Module, rate: float) -> None:
    """Move the parameters of a slow copy towards those of the trained network by a fraction `rate`."""
    pairs = [(a, b) for a, b in zip(slow.parameters(), fast.parameters(), strict=True) if a.numel()]
    torch._foreach_lerp_([a for a, _ in pairs], [b for _, b in pairs], rate)


def warmup_cosine(total_steps: int, warmup_steps: int, final_fraction: float) -> Callable[[int], float]:
    """Learning-rate factor: linear warm-up, then a cosine from 1 to `final_fraction` (1 keeps it constant)."""

    def factor(step: int) -> float:
        if step < warmup_steps:
            return (step + 1) / warmup_steps
        progress = min(1.0, (step - warmup_steps) / max(1, total_steps - warmup_steps))
        return final_fraction + (1 - final_fraction) * 0.5 * (1 + math.cos(math.pi * progress))

    return factor


def linear_decay(total_steps: int, first: float, last: float) -> Callable[[int], float]:
    """Learning-rate factor that takes a rate from `first` to `last` linearly over `total_steps` (PWM)."""

    def factor(step: int) -> float:
        return 1 + (last / first - 1) * min(1.0, step / max(1, total_steps))

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


def settings_of(optimizers: list[torch.optim.Optimizer]) -> list[list[dict[str, Any]]]:
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
