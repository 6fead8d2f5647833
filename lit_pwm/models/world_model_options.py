"""What a world model is made of, before its tasks are known: options of both LightningModules."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from lit_pwm.models.component import factory_from
from lit_pwm.models.dynamics import Dynamics, MLPDynamics
from lit_pwm.models.encoders import Encoder, MLPEncoder
from lit_pwm.models.heads import Head, RewardHead, TwoHotReward
from lit_pwm.models.layers import LatentWidth
from lit_pwm.models.parity import Parity, match_parameters, parity_of
from lit_pwm.models.world_model import WorldModel
from lit_pwm.options import CountOrZero, NonNegative, check_options


@dataclass(frozen=True)
class WorldModelOptions:
    """The parts of a world model and its widths; dimensions and tasks come from the data.

    Attributes:
        dynamics: the dynamics class and its options.
        latent_dim: width of the latent, a multiple of 8.
        task_dim: width of the task embedding.
        encoder: the encoder's class and options.
        reward: the reward head's class and options.
        heads: more heads, by name. `continuation` (`ContinuationHead`) is built by itself where the data holds
            terminations.
        parameter_reference: dynamics whose number of parameters these are to have: the width that comes nearest is
            chosen when the networks are built, and is saved with them. A model that starts from a checkpoint keeps its
            own width.
        parameter_tolerance: largest relative difference from the reference's number of parameters.
    """

    dynamics: Callable[[int, int, int], Dynamics] = MLPDynamics
    latent_dim: LatentWidth = 512
    task_dim: CountOrZero = 64
    encoder: Callable[[int, int, int], Encoder] = MLPEncoder
    reward: Callable[[int, int, int], RewardHead] = TwoHotReward
    heads: dict[str, Callable[[int, int, int], Head]] | None = None
    parameter_reference: Callable[[int, int, int], Dynamics] | None = None
    parameter_tolerance: NonNegative = 0.02

    def __post_init__(self) -> None:
        check_options(WorldModelOptions, vars(self))

    def build(
        self,
        tasks: Mapping[str, tuple[int, int]],
        obs_dim: int | None = None,
        action_dim: int | None = None,
        continuation: bool = False,
    ) -> WorldModel:
        """The model of these tasks, with fresh weights.

        Args:
            tasks: name → (obs_dim, action_dim) of each.
            obs_dim: padded observation width; the widest task's if not given.
            action_dim: padded action width; the widest task's if not given.
            continuation: whether it has a continuation head, of the reward head's size where `heads` names none.

        Raises:
            LitPWMError: there are no tasks, or no width of the dynamics gives the reference's number of parameters.
        """
        world_model = WorldModel(
            tasks, self._matched, self.latent_dim, self.task_dim, self.encoder, self.reward, self.heads, obs_dim,
            action_dim,
        )  # fmt: skip
        if continuation and world_model.continuation_head is None:
            world_model.add_continuation_()
        return world_model

    def _matched(self, *dimensions: int) -> Dynamics:
        make = factory_from(self.dynamics, Dynamics)
        if self.parameter_reference is not None:
            reference = factory_from(self.parameter_reference, Dynamics)
            make = match_parameters(make, reference, dimensions, self.parameter_tolerance)
        return make(*dimensions)

    def parity(self, world_model: WorldModel) -> Parity | None:
        """How its dynamics' number of parameters compares with the reference's; None without a reference."""
        if self.parameter_reference is None:
            return None
        dynamics = world_model.dynamics
        dimensions = dynamics.latent_dim, dynamics.action_dim, dynamics.task_dim
        return parity_of(dynamics, factory_from(self.parameter_reference, Dynamics), dimensions)

    def plain(self) -> dict[str, Any]:
        """Those options that are plain values or descriptions, as hyper-parameters; not factories of Python's."""
        heads = {name: head for name, head in (self.heads or {}).items() if isinstance(head, Mapping)}
        values = vars(self) | {"heads": heads}
        return {name: value for name, value in values.items() if not callable(value)}
