"""By how much what comes after an imagined step counts."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import Tensor

from lit_pwm.models.world_model import WorldModel
from lit_pwm.options import OptionObject


class Discounting(OptionObject, ABC):
    """A base of what a policy believes of ends, beside the discount γ."""

    @abstractmethod
    def continuation(
        self, world_model: WorldModel, latents: Tensor, actions: Tensor, embedding: Tensor, task: Tensor
    ) -> Tensor | None:
        """c of each imagined transition, the factor of γ there, with gradient.

        Args:
            world_model: imagines.
            latents: states from which a step is made [H, ..., Z].
            actions: [H, ..., A].
            embedding: of the tasks [..., E].
            task: ids [...].

        Returns:
            [H, ...]; None where every episode goes on.
        """


@dataclass(frozen=True)
class ContinuationDiscount(Discounting):
    """γ c_t where the world model has a continuation head, with c_t unthresholded (DreamerV3); γ where it has none."""

    def continuation(
        self, world_model: WorldModel, latents: Tensor, actions: Tensor, embedding: Tensor, task: Tensor
    ) -> Tensor | None:
        """As `Discounting.continuation`."""
        if world_model.continuation_head is None:
            return None
        return world_model.continuation_embedded(latents, actions, embedding, task)


@dataclass(frozen=True)
class ConstantDiscount(Discounting):
    """γ at every step, whatever the world model knows of ends (c = 1).

    The control of `ContinuationDiscount` on the same model: a policy is promised rewards beyond the end.
    """

    def continuation(
        self, world_model: WorldModel, latents: Tensor, actions: Tensor, embedding: Tensor, task: Tensor
    ) -> Tensor | None:
        """As `Discounting.continuation`: None."""
        return None
