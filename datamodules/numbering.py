"""How batches number tasks and how wide their rows are, as a model wants them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lit_pwm.errors import LitPWMError


@dataclass(eq=False)
class Binding:
    """How batches number tasks and how wide they are; shared by all loaders of a datamodule.

    Attributes:
        task_ids: the number of each of the data's tasks [N].
        obs_dim: width of observations.
        action_dim: width of actions.
        option: where the stream's options are, for errors.
    """

    task_ids: np.ndarray
    obs_dim: int
    action_dim: int
    option: str = "data"

    def bind(
        self, tasks: Mapping[str, tuple[int, int]], task_names: Sequence[str], obs_dim: int, action_dim: int
    ) -> None:
        """From now on number tasks as `task_names` does, and pad or cut rows to these widths.

        Args:
            tasks: the data's, in its order: name → (obs_dim, action_dim).
            task_names: the model's, in its order.
            obs_dim: width of observations that the model takes.
            action_dim: width of its actions.

        Raises:
            LitPWMError: a task of the data is not among `task_names`, or is wider than the widths.
        """
        names = list(task_names)
        unknown = [name for name in tasks if name not in names]
        if unknown:
            raise LitPWMError(
                f"The data has the task{'s' if len(unknown) > 1 else ''} {', '.join(map(repr, unknown))}, which the "
                f"model does not know. The data's tasks are {', '.join(tasks)}; the model's are "
                f"{', '.join(names) or 'none'}. Choose tasks that the model knows with {self.option}.tasks, let the "
                f"model learn of others with model.new_tasks, or train a model on these."
            )
        for name, dims in tasks.items():
            if dims[0] > obs_dim or dims[1] > action_dim:
                raise LitPWMError(
                    f"The task {name!r} of the data has {dims[0]} observation and {dims[1]} action entries, but the "
                    f"model takes {obs_dim} and {action_dim}. Leave it out with {self.option}.tasks, or train a model "
                    f"that is wide enough."
                )
        self.task_ids = np.array([names.index(name) for name in tasks], np.int64)
        self.obs_dim, self.action_dim = int(obs_dim), int(action_dim)
