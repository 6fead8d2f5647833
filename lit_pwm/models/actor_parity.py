"""How many parameters an actor is to have, as another one does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lit_pwm.models.actors import Actor
from lit_pwm.options import NonNegative, check_options


@dataclass(frozen=True)
class ActorParity:
    """The actor whose number of parameters a policy's actor is to have.

    Attributes:
        reference: that actor: the width that comes nearest is chosen when the networks are built, and is saved with
            them; None for any number.
        tolerance: largest relative difference from the reference's number of parameters.
    """

    reference: Callable[[int, int, int], Actor] | None = None
    tolerance: NonNegative = 0.02

    def __post_init__(self) -> None:
        check_options(ActorParity, vars(self))

    def plain(self) -> dict[str, Any]:
        """Those options that are plain values or descriptions, as hyper-parameters; not factories of Python's."""
        return {name: value for name, value in vars(self).items() if not callable(value)}
