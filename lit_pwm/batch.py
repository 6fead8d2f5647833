"""What a batch of slices is, and what a model needs to know of the data it is fed.

Shape legend of the whole project: T time, H horizon (transitions in a slice), B batch, O observation width, A action
width, Z latent width, N number of tasks. Rollouts and batches are time-major.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NotRequired, Protocol, TypedDict, runtime_checkable

import torch
from torch import Tensor


class Batch(TypedDict):
    """One batch of episode-safe slices.

    `obs[t]` is followed by `action[t]`, which earned `reward[t]` and led to `obs[t + 1]`. `task` indexes the task names
    the batches were bound to (`DataSource.bind_tasks`), else the data's own. `second` is the batch of a second stream
    with its own H and B, at the updates that have one.

    Where an episode of the data ended by termination, slices may run past its terminal row, and every batch says which
    transitions there are (`valid`) and which led to a terminal state (`terminated`). Beyond an end all is 0, and no
    loss or measure may see it: a loss of a step is Σ_b valid[t, b] x[t, b] / B, by all B slices of the whole batch.
    Steps that are not valid follow all that are, and a slice's first step is always valid.

    `consistent` is there too, and where some episode ended without its last observation having been recorded: it is
    `valid`, but 0 for a transition to such an observation, where `obs[t + 1]` repeats `obs[t]`, and nothing may be
    learned or measured of what followed. Without either, batches have none of the three.
    """

    obs: Tensor  # [H+1, B, O] float32, zero-padded on the right to the bound width
    action: Tensor  # [H, B, A] float32, zero-padded
    reward: Tensor  # [H, B] float32
    task: Tensor  # [B] int64
    second: NotRequired[Batch]
    terminated: NotRequired[Tensor]  # [H, B] bool
    valid: NotRequired[Tensor]  # [H, B] bool
    consistent: NotRequired[Tensor]  # [H, B] bool


def without_padding(batch: Batch) -> Batch:
    """The batch with zeros beyond the ends of episodes, whatever stood there; itself where it does not say `valid`.

    `consistent` is `valid` where the batch does not say otherwise.

    Whoever masks by `valid` masks this: what is not finite stays so under a factor of zero, and in gradients.
    """
    if (valid := batch.get("valid")) is None:
        return batch
    there = valid[..., None]
    obs = torch.cat([batch["obs"][:1], batch["obs"][1:].where(there, 0)])
    cleared = {"obs": obs, "action": batch["action"].where(there, 0), "reward": batch["reward"].where(valid, 0)}
    return {"consistent": valid, **batch, **cleared}


def counted(per_step: Tensor, counts: Tensor | None) -> Tensor:
    """What each step has [H, ..., B], and 0 where it does not count.

    Args:
        per_step: values, [H, ..., B].
        counts: which count, bool [H, B], as a batch's `valid` and `consistent`; all where it is None.
    """
    if counts is None:
        return per_step
    between = (1,) * (per_step.ndim - 2)
    return per_step.where(counts.view(len(counts), *between, -1), 0)


@runtime_checkable
class DataSource(Protocol):
    """What the LightningModules ask of the datamodule they are fitted with."""

    @property
    def tasks(self) -> dict[str, tuple[int, int]]:
        """Chosen tasks in the data's order: name → (obs_dim, action_dim), unpadded."""
        ...

    @property
    def has_terminations(self) -> bool:
        """Whether any chosen episode ended by termination."""
        ...

    def bind_tasks(self, task_names: Sequence[str], obs_dim: int, action_dim: int) -> None:
        """From now on number tasks as `task_names` does and pad to these widths.

        Raises:
            LitPWMError: a chosen task is not among `task_names`, or is wider than the widths.
        """
        ...

    def observation_statistics(self) -> dict[str, tuple[list[float], list[float]]]:
        """Mean and standard deviation of each observation entry over the training episodes, for each chosen task."""
        ...
