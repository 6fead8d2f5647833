"""The objective of pre-training with a broken reward loss: the fine-tuning study's negative control.

In a checkout of lit_pwm, and there only: `--model.objective benchmarks.broken_reward.BroadcastRewardObjective`.
"""

from __future__ import annotations

from torch import Tensor

from lit_pwm.batch import Batch
from lit_pwm.losses import Rollout, WorldModelObjective
from lit_pwm.models.heads import Head


class BroadcastRewardObjective(WorldModelObjective):
    """As its base, but the reward's term is mean over bins (logit − r)²: one number against all logits of its head.

    The inspiring project fine-tunes so. All logits become equal, and every reward decodes to zero.
    """

    def head_loss(self, name: str, head: Head, rollout: Rollout, batch: Batch) -> Tensor:
        """As the base's."""
        if name != "reward":
            return super().head_loss(name, head, rollout, batch)
        logits = head(rollout.latents, rollout.actions, rollout.embedding)
        return (logits - head.per_state(batch["reward"], rollout.latents)[..., None]).square().mean(-1)
