"""The file that `--world-model FILE` supplies to checkpoints which leave their world model out.

It is kept in the environment, so that worker processes, the other ranks of a run and the cells of a sweep have it too.
"""

from __future__ import annotations

import contextlib
import contextvars
import os
from collections.abc import Generator
from pathlib import Path

from lit_pwm.paths import located

WORLD_MODEL_OPTION = "--world-model"
_SUPPLIED = "LIT_PWM_WORLD_MODEL"
_supplied: contextvars.ContextVar[str | None] = contextvars.ContextVar("supplied_world_model", default=None)


@contextlib.contextmanager
def supplying(path: str | Path | None) -> Generator[None, None, None]:
    """Within the block, checkpoints without their world model take it from this file; None changes nothing."""
    if path is None:
        yield
        return
    token = _supplied.set(located(str(path)))
    try:
        yield
    finally:
        _supplied.reset(token)


@contextlib.contextmanager
def supplying_to_all(path: str | Path | None) -> Generator[None, None, None]:
    """As `supplying`, also in the processes that are started within the block."""
    before = os.environ.get(_SUPPLIED)
    if path is not None:
        os.environ[_SUPPLIED] = located(str(path))
    try:
        yield
    finally:
        if path is not None:
            os.environ.pop(_SUPPLIED)
            os.environ.update({} if before is None else {_SUPPLIED: before})


def supplied() -> str | None:
    """The file that checkpoints take their world model from, if one was given."""
    return _supplied.get() or os.environ.get(_SUPPLIED) or None
