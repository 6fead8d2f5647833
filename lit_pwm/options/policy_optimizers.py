"""What belongs to an optimizer: its learning rate and moments, how it is clipped, and what follows its weights."""

from __future__ import annotations

from dataclasses import dataclass

from lit_pwm.errors import LitPWMError
from lit_pwm.options.ranges import Beta, Count, NonNegative, Positive, Rate, check_options


@dataclass(frozen=True)
class ActorOptimizer:
    """Adam over the actor (PWM's settings).

    Attributes:
        lr: learning rate at the start.
        final_lr: the rate falls linearly to this one over the run; at most as large as `lr`.
        betas: decay of the moments' averages.
        clip_norm: largest norm of the gradient.
        average_rate: fraction by which the averaged actor, an exponential moving average (EMA) of the trained one's
            weights, moves after each update. The averaged one is the policy: it is what is evaluated, saved for use and
            continued from. A policy trained by gradients through a model swings between updates, and its average does
            not. 1 is PWM's, without average.
        detach_input: cut the gradient at the actor's input, so that it flows only through the dynamics and the rewards
            (as PWM).
    """

    lr: Positive = 5e-4
    final_lr: NonNegative = 1e-5
    betas: tuple[Beta, Beta] = (0.7, 0.95)
    clip_norm: Positive = 1.0
    average_rate: Rate = 1.0
    detach_input: bool = True

    def __post_init__(self) -> None:
        _check(self)


@dataclass(frozen=True)
class CriticOptimizer:
    """Adam over the critics (PWM's settings), in several passes over the imagined states of each update.

    Attributes:
        lr: learning rate at the start.
        final_lr: the rate falls linearly to this one over the run; at most as large as `lr`.
        betas: decay of the moments' averages.
        clip_norm: largest norm of the gradient.
        passes: passes over the imagined states in each update.
        minibatches: minibatches of each pass, at most one for each imagined step: each start's states are dealt to
            them in an order of its own.
        target_rate: fraction by which the target critics (a Polyak average), which provide the values of targets and
            of the last state, move towards the trained ones after each update; 1 is PWM's, which has no target network.
    """

    lr: Positive = 5e-4
    final_lr: NonNegative = 1e-5
    betas: tuple[Beta, Beta] = (0.7, 0.95)
    clip_norm: Positive = 100.0
    passes: Count = 8
    minibatches: Count = 4
    target_rate: Rate = 1.0

    def __post_init__(self) -> None:
        _check(self)


def _check(settings: ActorOptimizer | CriticOptimizer) -> None:
    name = type(settings).__name__
    check_options(type(settings), vars(settings))
    if settings.final_lr > settings.lr:
        raise LitPWMError(
            f"{name} has final_lr {settings.final_lr:g}, to which the rate falls, but lr {settings.lr:g}. Give a "
            f"final_lr that is not larger."
        )
