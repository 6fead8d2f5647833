"""The heads of a world model: what it predicts of a transition, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from torch import Tensor, nn

from lit_pwm.errors import LitPWMError
from lit_pwm.models.component import factory_from
from lit_pwm.models.continuation_head import CONTINUATION, ContinuationHead
from lit_pwm.models.heads import Head, RewardHead
from lit_pwm.models.layers import TaskEmbedding

_TAKEN = ("reward", "encoder", "dynamics", "task_embedding")
MakesHead = Callable[[int, int, int], Head] | Mapping[str, Any]


class ModelHeads(nn.Module):
    """The part of a world model that holds its heads; a subclass makes them with the rest of it.

    Attributes:
        tasks: name → (obs_dim, action_dim) of each task, in the order of the task ids.
        task_embedding: of the tasks.
        heads: by name; `reward` is there always, `continuation` where the model knows of ends.
    """

    tasks: dict[str, tuple[int, int]]
    task_embedding: TaskEmbedding
    heads: nn.ModuleDict

    def make_heads_(self, reward: MakesHead, others: Mapping[str, MakesHead], dimensions: Sequence[int]) -> None:
        """Make the heads, without their first weights.

        Args:
            reward: makes the reward's.
            others: make the others.
            dimensions: width of the latent, of the action and of the task embedding.

        Raises:
            LitPWMError: a name that is none in Python or that of another part; a continuation head of another name.
        """
        for name in others:
            if not name.isidentifier() or name in _TAKEN:
                raise LitPWMError(
                    f"A world model has a head called {name!r}; give it a name of letters, digits and underscores that "
                    f"is none of {', '.join(_TAKEN)}, which its other parts have."
                )
        self.heads = nn.ModuleDict({"reward": factory_from(reward, RewardHead)(*dimensions)})
        for name, make in others.items():
            head = factory_from(make, ContinuationHead if name == CONTINUATION else Head)(*dimensions)
            if isinstance(head, ContinuationHead) != (name == CONTINUATION):
                raise LitPWMError(
                    f"A world model has the head {name!r}, made by {type(head).__name__}: a ContinuationHead, and no "
                    f"other, is called {CONTINUATION!r}, by which name imagination finds it. Rename one of them in "
                    f"`heads` of the world model's options."
                )
            self.heads[name] = head
        for head in self.heads.values():
            cast("Head", head).number_tasks_(len(self.tasks))

    def add_continuation_(self) -> None:
        """Let the model have a continuation head of the reward head's size, with first weights; it has none yet."""
        head = ContinuationHead.like(self.reward_head)
        head.number_tasks_(len(self.tasks))
        head.initialise_()
        self.heads[CONTINUATION] = head

    # -- which there are --------------------------------------------------------------------------------------------
    @property
    def reward_head(self) -> RewardHead:
        """The head of the reward."""
        return cast("RewardHead", self.heads["reward"])

    @property
    def continuation_head(self) -> ContinuationHead | None:
        """The head of P(the episode goes on); None where the model knows of no ends."""
        return cast("ContinuationHead", self.heads[CONTINUATION]) if CONTINUATION in self.heads else None

    @property
    def terminating_tasks(self) -> tuple[str, ...]:
        """The tasks whose episodes end by termination as far as the model knows; none without continuation head."""
        if (head := self.continuation_head) is None:
            return ()
        return tuple(name for name, ends in zip(self.tasks, head.terminates.tolist(), strict=True) if ends)

    def know_ends_(self, ends: Mapping[str, bool]) -> None:
        """From now on episodes of these tasks end, or do not; others stay as they are. Nothing without such a head."""
        if (head := self.continuation_head) is not None:
            names = list(self.tasks)
            head.know_ends_({names.index(name): terminates for name, terminates in ends.items()})

    # -- what they say ----------------------------------------------------------------------------------------------
    def reward_logits(self, z: Tensor, action: Tensor, task: Tensor) -> Tensor:
        """Latents [..., Z], actions [..., A], task ids [...] → two-hot logits [..., bins]."""
        return self.reward_logits_embedded(z, action, self.task_embedding(task.expand(z.shape[:-1])))

    def reward_logits_embedded(self, z: Tensor, action: Tensor, embedding: Tensor) -> Tensor:
        """As `reward_logits`, with the task embedding [..., E] looked up once for a whole rollout."""
        return self.reward_head(z, action, embedding)

    def reward(self, z: Tensor, action: Tensor, task: Tensor) -> Tensor:
        """Latents [..., Z], actions [..., A], task ids [...] → rewards in environment units [...]."""
        return self.reward_head.decode(self.reward_logits(z, action, task))

    def continuation(self, z: Tensor, action: Tensor, task: Tensor) -> Tensor:
        """Latents [..., Z], actions [..., A], task ids [...] → c [...] in (0, 1]: P(the episode goes on).

        Exactly 1 for a task without ends.

        Raises:
            LitPWMError: the model has no continuation head.
        """
        return self.continuation_embedded(z, action, self.task_embedding(task.expand(z.shape[:-1])), task)

    def continuation_embedded(self, z: Tensor, action: Tensor, embedding: Tensor, task: Tensor) -> Tensor:
        """As `continuation`, with the task embedding [..., E] looked up once for a whole rollout."""
        if (head := self.continuation_head) is None:
            raise LitPWMError(
                "This world model has no continuation head, so that it does not say whether an episode goes on. Train "
                "one on data with terminations, or on any with --model.world_model.heads.continuation "
                "lit_pwm.models.ContinuationHead."
            )
        return head.decode(head(z, action, embedding), task)
