"""What makes a policy's networks: factories of actor and critics, and the actor whose size another one is to have."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from lit_pwm.models.actors import Actor
from lit_pwm.models.critics import CriticEnsemble
from lit_pwm.models.parity import match_parameters

ActorFactory = Callable[[int, int, int], Actor]


@dataclass(frozen=True)
class PolicyMakers:
    """What makes the networks.

    Attributes:
        actor: makes an actor from latent width, action width and number of tasks.
        critic: makes the critics from latent width and number of tasks.
        reference: makes the actor whose number of parameters the actor is to have, by its width; None for any number.
        tolerance: largest relative difference from the reference's.
    """

    actor: ActorFactory
    critic: Callable[[int, int], CriticEnsemble]
    reference: ActorFactory | None = None
    tolerance: float = 0.02

    def matched_actor(self, *dimensions: int) -> Actor:
        """The actor, of the width that comes nearest to the reference's number of parameters."""
        make = self.actor
        if self.reference is not None:
            make = match_parameters(make, self.reference, dimensions, self.tolerance)
        return make(*dimensions)
