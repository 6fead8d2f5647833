"""What a batch of slices is, and what a model needs to know of the data it is fed.

Shape legend of the whole project: T time, H horizon (transitions in a slice), B batch, O observation width, A action
width, Z latent width, N number of tasks. Rollouts and batches are time-major.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NotRequired, Protocol, TypedDict, runtime_checkable

from torch import Tensor


class Batch(TypedDict):
    """One batch of episode-safe slices.

    `obs[t]` is followed by `action[t]`, which earned `reward[t]` and led to `obs[t + 1]`. `task` indexes the task names
    the batches were bound to (`DataSource.bind_tasks`), else the data's own. `second` is the batch of a second stream
    with its own H and B, at the updates that have one. `consistent` is there where some episode of the data ended
    without its last observation having been recorded: it is 0 for a transition to one, where `obs[t + 1]` repeats
    `obs[t]`, and nothing may be learned or measured of what followed.
    """

    obs: Tensor  # [H+1, B, O] float32, zero-padded on the right to the bound width
    action: Tensor  # [H, B, A] float32, zero-padded
    reward: Tensor  # [H, B] float32
    task: Tensor  # [B] int64
    second: NotRequired[Batch]
    consistent: NotRequired[Tensor]  # [H, B] bool


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
