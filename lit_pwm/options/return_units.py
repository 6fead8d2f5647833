"""In which units a policy's rewards and returns are trained on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from lit_pwm.options.ranges import Positive, check_options

RewardSpace = Literal["symlog", "raw"]
ReturnScale = Literal["shared", "task"]


@dataclass(frozen=True)
class ReturnOptions:
    """Units of rewards, and what returns are divided by.

    Attributes:
        reward_space: train on rewards in symlog units (as PWM) or in environment units.
        reward_scale: factor on rewards, which sets the scale of the critics' values.
        scale: returns are divided by their running deviation, which all tasks share (as PWM, which has one), or by that
            of their own `task`, so that a task of small returns is not starved by one of large ones. On the demo's
            three tasks that is not shown to help (benchmarks/multitask_returns.py).
    """

    reward_space: RewardSpace = "symlog"
    reward_scale: Positive = 1.0
    scale: ReturnScale = "shared"

    def __post_init__(self) -> None:
        check_options(ReturnOptions, vars(self))
