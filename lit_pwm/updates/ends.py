"""Where the ends of the data's episodes meet a world model: whether it knows of any, and in which tasks."""

from __future__ import annotations

from typing import Literal

from lit_pwm.batch import DataSource
from lit_pwm.errors import LitPWMError
from lit_pwm.models.world_model import WorldModel

Stream = Literal["first", "second", "both"]
"""Of the data."""


def require_continuation(source: DataSource, world_model: WorldModel) -> None:
    """Make sure that a model which is fed episodes that terminate can know of it.

    Raises:
        LitPWMError: the data holds terminations, and the model has no continuation head.
    """
    if source.has_terminations and world_model.continuation_head is None:
        names = terminating_tasks(source)
        of_tasks = f" ({', '.join(names)})" if names else ""
        raise LitPWMError(
            f"The data holds episodes that ended by termination{of_tasks}, and the world "
            f"model has no continuation head: it would imagine rewards beyond the end. Train a world model on this "
            f"data from fresh weights, which builds the head (on other data ask for it: "
            f"--model.world_model.heads.continuation lit_pwm.models.ContinuationHead); or leave those tasks "
            f"out with data.tasks, or their episodes with `lit-pwm data subset`."
        )


def terminating_tasks(source: DataSource, stream: Stream = "both") -> tuple[str, ...]:
    """Tasks of which training episodes of a stream ended by termination.

    All, where a datamodule does not say in which they do.
    """
    if (rates := getattr(source, "termination_rates", None)) is None:
        return tuple(getattr(source, "all_tasks", source.tasks)) if source.has_terminations else ()
    return tuple(name for name, rate in rates(stream).items() if rate > 0)


def learn_ends(source: DataSource, world_model: WorldModel, trained_on: Stream | None) -> None:
    """Let the continuation head know in which tasks the data's episodes end; called when training starts.

    It comes to know of those alone that it is trained on: what it says of others, it does not know.

    Args:
        source: the data.
        world_model: the model; nothing is done where it has no such head.
        trained_on: the stream that this run trains the head on; None where it does not. Pre-training uses no other than
            the first, and a policy needs the model to know what ends in either.

    Raises:
        LitPWMError: episodes end in a task of which the head has seen no end and sees none in this run.
    """
    if world_model.continuation_head is None:
        return
    seen = () if trained_on is None else terminating_tasks(source, trained_on)
    needed = seen if trained_on == "first" else terminating_tasks(source)
    unknown = [name for name in needed if name not in (*world_model.terminating_tasks, *seen)]
    if unknown:
        raise LitPWMError(
            f"The data holds episodes of {', '.join(unknown)} that ended by termination, and the world model's "
            f"continuation head was trained on none: for it every episode goes on there. Train the world model further "
            f"on this data (model.initial_checkpoint in pre-training, or `continuation` among the parts of "
            f"FinetuneSchedule, with these episodes in data.second), or leave those tasks out with data.tasks."
        )
    world_model.know_ends_(dict.fromkeys(seen, True))
