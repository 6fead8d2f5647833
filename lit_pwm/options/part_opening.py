"""When a part of a world model opens while a policy learns on it, and how fast it learns then."""

from __future__ import annotations

from dataclasses import dataclass

from lit_pwm.options.ranges import CountOrZero, Positive, check_options


@dataclass(frozen=True)
class Opening:
    """The opening of a part: from then on it is trained; before, it keeps its bits.

    Attributes:
        update: the policy update, counted from 0, that is the first to train it.
        lr: learning rate; that of `model.world_model_optimizer` for this part if not given.
        warmup_steps: policy updates of linear warm-up from the opening on; those of `model.world_model_optimizer` if
            not given.
    """

    update: CountOrZero = 0
    lr: Positive | None = None
    warmup_steps: CountOrZero | None = None

    def __post_init__(self) -> None:
        check_options(Opening, vars(self))
