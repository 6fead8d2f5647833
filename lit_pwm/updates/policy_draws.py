"""What an update of a policy draws: the noise of actor, dynamics and world model, and the critics' minibatches."""

from __future__ import annotations

from typing import cast

from torch import Tensor

from lit_pwm.batch import Batch
from lit_pwm.updates.draws import Draws, stream_seed
from lit_pwm.updates.minibatches import Deal
from lit_pwm.updates.policy_preparation import PolicyPreparation
from lit_pwm.updates.world_model_steps import WorldModelSteps


class PolicyDraws(PolicyPreparation):
    """The part of policy learning that draws: functions of the run's seed, the update and a sample's place.

    Attributes:
        horizon: imagined steps H; a subclass sets it in its constructor.
    """

    horizon: int
    _dealt: Deal | None = None

    def update_noise(self, batch_size: int) -> dict[str, Tensor]:
        """The noise of the next update, which draws the same again: `update` says what it is."""
        return self._noise(self._draws(self._seed, self.global_step), batch_size)

    def world_model_noise(self, batch: Batch) -> dict[str, Tensor]:
        """What the world model's step in the next update draws, [B, *shape] each; nothing where it makes none."""
        steps = cast("WorldModelSteps", self.model_steps)
        second = steps.due(batch)
        return {} if second is None else steps.noise(second, self._draws(self._seed, self.global_step))

    def validation_noise(self, number: int, batch_size: int) -> dict[str, Tensor]:
        """The noise of a validation's batch of this number: of a stream of its own, the same at every validation."""
        return self._noise(self._draws(stream_seed(int(self.noise_seed), "validation", 0), number), batch_size)

    def update_minibatches(self, batch_size: int) -> list[Tensor]:
        """The critics' minibatches of the next update, of all passes in order (`lit_pwm.updates.minibatches`)."""
        draws, deal = self._draws(self._seed, self.global_step), self._deal(batch_size)
        passes = range(self.critic_optimizer.passes)
        orders = (draws.permutations(f"critic pass {number}", batch_size, self.horizon) for number in passes)
        return [minibatch for order in orders for minibatch in deal(order)]

    def _draws(self, seed: int, number: int) -> Draws:
        ranks = 1 if self._trainer is None else self.trainer.world_size
        return Draws(seed, number, self.global_rank, ranks, self.device, self.world_model.obs_mean.dtype)

    def _noise(self, draws: Draws, batch_size: int) -> dict[str, Tensor]:
        shapes: dict[str, tuple[int, ...]] = {"actor": (self.world_model.action_dim,)}
        if (own := self.world_model.dynamics.noise_shape) is not None:
            shapes["dynamics"] = own
        return {
            name: draws.normal(name, batch_size, (self.horizon, *shape)).movedim(1, 0) for name, shape in shapes.items()
        }

    def _deal(self, batch_size: int) -> Deal:
        if self._dealt is None or self._dealt.batch_size != batch_size or self._dealt.device != self.device:
            ranks = 1 if self._trainer is None else self.trainer.world_size
            minibatches = self.critic_optimizer.minibatches
            self._dealt = Deal(self.horizon, minibatches, batch_size, self.global_rank, ranks, self.device)
        return self._dealt
