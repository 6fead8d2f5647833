"""Settings of optimizers, which belong together and are one option of a module."""

from __future__ import annotations

from dataclasses import dataclass

from lit_pwm.options.ranges import Beta, CountOrZero, Fraction, NonNegative, Positive, check_options


@dataclass(frozen=True)
class WorldModelOptimizer:
    """AdamW for a world model, with linear warm-up and cosine decay.

    Attributes:
        lr: learning rate.
        encoder_lr_scale: the encoder's learning rate as a fraction of `lr` (TD-MPC2: 0.3).
        betas: AdamW's betas.
        weight_decay: AdamW's weight decay.
        clip_norm: largest gradient norm.
        warmup_steps: updates of linear warm-up.
        final_lr_fraction: the cosine schedule ends at this fraction of the learning rate; 1 keeps it constant.
    """

    lr: NonNegative = 3e-4
    encoder_lr_scale: NonNegative = 0.3
    betas: tuple[Beta, Beta] = (0.9, 0.999)
    weight_decay: NonNegative = 0.0
    clip_norm: Positive = 20.0
    warmup_steps: CountOrZero = 0
    final_lr_fraction: Fraction = 1.0

    def __post_init__(self) -> None:
        check_options(WorldModelOptimizer, vars(self))
