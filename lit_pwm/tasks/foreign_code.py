"""Faults of environments that somebody else has written, told as such."""

from __future__ import annotations

import logging
import traceback
from typing import Any

import gymnasium

from lit_pwm.errors import LitPWMError

_LOG = logging.getLogger(__name__)


class EnvironmentFailedError(LitPWMError):
    """The code of an environment raised an error, or gave what no environment may give."""


def failure(task: str, call: str, error: Exception) -> EnvironmentFailedError:
    """What to tell of an error that an environment raised; raise it from that error.

    Args:
        task: the environment's.
        call: what was asked of it, such as `step()`.
        error: what it raised.
    """
    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames else ""
    return EnvironmentFailedError(
        f"The environment of {task!r} failed in {call}: {in_words(error)}{where}. Mend the environment; --debug shows "
        f"the whole traceback."
    )


def in_words(error: BaseException) -> str:
    """An error's type and what it says, in a line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}".rstrip(".: ")


def close_foreign(env: gymnasium.Env[Any, Any], task: str) -> None:
    """Close an environment that is of no more use, and go on where it cannot be: what it gave is not worth less."""
    try:
        env.close()
    except Exception as error:  # whatever the environment's code raises
        _LOG.warning("%s", failure(task, "close()", error))
