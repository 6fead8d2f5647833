"""How often each task is drawn from, where slices are balanced by tasks."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np

from lit_pwm.errors import LitPWMError, did_you_mean


def weights_of(
    tasks: Collection[str], given: Mapping[str, float] | None, balance: str, option: str
) -> np.ndarray | None:
    """The weight of each task, float64 [K]; None where all are drawn from equally often.

    Args:
        tasks: names of a stream's tasks, in its order.
        given: name → weight, positive; 1 for those that are not named.
        balance: how slices are balanced.
        option: where the stream's options are, for errors.

    Raises:
        LitPWMError: slices are not balanced by tasks, or a name is none of the stream's tasks.
    """
    if not given:
        return None
    if balance != "tasks":
        raise LitPWMError(
            f"{option}.task_weights is given, and data.balance is {balance!r}, which draws from all slices alike. Set "
            f"data.balance to tasks, which draws a task first, or leave the weights out."
        )
    for name in given:
        if name not in tasks:
            raise LitPWMError(
                f"{option}.task_weights names {name!r}, of which nothing is drawn. {did_you_mean(name, list(tasks))}"
            )
    return np.array([given.get(name, 1.0) for name in tasks], np.float64)
