"""What is known of a task: enough to build its environment in any process."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lit_pwm.errors import LitPWMError

STOCK_SUITE = "dm_control.suite"
CUSTOM_SUITE = "lit_pwm.tasks.custom"
METAWORLD = "metaworld"
DIVERGED = "diverged"
"""Key of an environment's info at the step at which its simulation diverged."""
GYM_PREFIX = "gym:"
"""What begins the name of a task that is an environment of gymnasium's registry."""
GYM_MAKE = "gymnasium:make"
"""What makes such an environment, by the keyword `id`."""

WHOLE_OBSERVATION = "observation"
"""What an observation that has no parts is called among `obs_keys`."""

DM_CONTROL_SCORES = (0.0, 1000.0)
"""The returns of an episode of dm_control that count as scores of 0 and 1."""
_DM_CONTROL_LENGTH, _DM_CONTROL_REPEAT = 500, 2


@dataclass(frozen=True)
class TaskSpec:
    """What is known of a task without building its environment.

    A spec can be pickled, and an environment is built from it in any process. What it names decides how:

    - `make` is an importable function that returns a `gymnasium.Env`, and `kwargs` are its arguments, in values that
      JSON has. Dimensions, bounds and time limit may be left out: they are read from the environment
      (`lit_pwm.tasks.completing.completed`).
    - Otherwise `suite` is the importable package in whose module `domain` a dm_control `SUITE` (a `TaggedTasks`) holds
      a constructor named `task`.

    Attributes:
        name: the task's name in lit_pwm, in stores and in checkpoints.
        domain: the dm_control domain, a module of `suite`.
        task: the key in that module's `SUITE`.
        obs_dim: width of the flat observation, unpadded; 0 where it is still to be read from the environment.
        action_dim: width of the action, unpadded; likewise.
        obs_keys: names and widths of the observation's parts, in order; empty where they are not known.
        episode_length: agent steps in an episode; 500 for dm_control, else by default the environment's own time limit.
        action_repeat: steps of the environment per agent step, whose rewards are summed; 2 for dm_control, else 1.
        suite: the package that holds the domain; dm_control's own by default.
        make: `"module:function"`, such as `"my_robots.envs:make_arm"`.
        kwargs: the function's keyword arguments.
        low: the environment's lower bound of each entry of the action, to which -1 is mapped; empty where it is still
            to be read from the environment.
        high: its upper bounds, to which 1 is mapped; likewise.
        score_range: the returns that count as scores of 0 and 1; 0 and 1000 for dm_control, else by default None: its
            returns are not normalised.

    Raises:
        LitPWMError: fields contradict each other, or a value is none that they take.
    """

    name: str
    domain: str = ""
    task: str = ""
    obs_dim: int = 0
    action_dim: int = 0
    obs_keys: tuple[tuple[str, int], ...] = ()
    episode_length: int = 0
    action_repeat: int = 0
    suite: str = ""
    make: str = ""
    kwargs: Mapping[str, Any] = field(default_factory=dict, hash=False)
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    score_range: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if self.make:
            self._check_made()
            self._default(action_repeat=1)
        else:
            self._check_of_suite()
            self._default(suite=STOCK_SUITE, episode_length=_DM_CONTROL_LENGTH, action_repeat=_DM_CONTROL_REPEAT)
            if self.suite != METAWORLD:
                self._default(score_range=DM_CONTROL_SCORES)
        for name in ("obs_dim", "action_dim", "episode_length", "action_repeat"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 0:
                raise self._wrong(name, value, "a whole number of 1 or more")
        for name in ("low", "high"):
            self._keep_as_numbers(name, "a finite number for each entry of the action")
        if self.score_range is not None:
            accepted = "the return of a score of 0 and the larger one of 1"
            scores = self._keep_as_numbers("score_range", accepted)
            if not (len(scores) == 2 and scores[0] < scores[1]):
                raise self._wrong("score_range", scores, accepted)

    def _keep_as_numbers(self, name: str, accepted: str) -> tuple[float, ...]:
        """A sequence of any kind is kept as a tuple: specs are compared, hashed and written as JSON."""
        value = getattr(self, name)
        try:
            numbers = () if isinstance(value, str) else tuple(float(number) for number in value)
        except (TypeError, ValueError):
            numbers = (math.nan,)
        if isinstance(value, str) or not all(map(math.isfinite, numbers)):
            raise self._wrong(name, value, accepted)
        object.__setattr__(self, name, numbers)
        return numbers

    def _check_made(self) -> None:
        module, _, function = self.make.partition(":") if isinstance(self.make, str) else ("", "", "")
        if not all(part.isidentifier() for part in (*module.split("."), *function.split("."))):
            raise self._wrong("make", self.make, "an importable function, as 'package.module:function'")
        if self.domain or self.task or self.suite:
            raise LitPWMError(
                f"The TaskSpec {self.name!r} names both a function, make={self.make!r}, and a task of a dm_control "
                f"suite ({', '.join(filter(None, (self.suite, self.domain, self.task)))}). Name one of them."
            )
        try:
            kept = json.loads(json.dumps(dict(self.kwargs), allow_nan=False))
            if kept != dict(self.kwargs):
                raise ValueError("values change on the way through JSON")
        except (TypeError, ValueError) as error:
            raise self._wrong(
                "kwargs", self.kwargs, f"arguments that JSON has, so that the spec can be kept in files ({error})"
            ) from error
        if kept.get("render_mode") not in (None, "rgb_array"):  # a window: without a display the process is aborted
            raise self._wrong("kwargs", kept, "those without render_mode, which is given where frames are asked for")
        object.__setattr__(self, "kwargs", kept)

    def _check_of_suite(self) -> None:
        if not (self.domain and self.task and self.obs_dim and self.action_dim):
            raise LitPWMError(
                f"The TaskSpec {self.name!r} says too little to build an environment. Give make='module:function', a "
                f"function that returns a gymnasium.Env; or domain, task, obs_dim and action_dim of a dm_control suite."
            )
        if self.kwargs:
            raise self._wrong("kwargs", self.kwargs, "none without make, whose arguments they are")

    def _default(self, **values: Any) -> None:
        for name, value in values.items():
            if not getattr(self, name):
                object.__setattr__(self, name, value)

    def _wrong(self, name: str, value: object, accepted: str) -> LitPWMError:
        return LitPWMError(f"The TaskSpec {self.name!r} has {name}={value!r:.200}. Accepted: {accepted}.")

    @property
    def module(self) -> str:
        """What is imported to build the environment; `gym:MODULE:ID` asks for its own module instead."""
        if self.make != GYM_MAKE:
            return self.make.partition(":")[0] or f"{self.suite}.{self.domain}"
        return str(self.kwargs.get("id", "")).rpartition(":")[0] or "gymnasium"

    @property
    def custom(self) -> bool:
        """Whether the task is not one of dm_control's own."""
        return self.suite != STOCK_SUITE

    @property
    def runnable(self) -> bool:
        """Whether there is an environment of it; of Meta-World's tasks there is none here."""
        return self.suite != METAWORLD

    @property
    def max_return(self) -> float:
        """The largest return of an episode where each step of the environment earns at most 1, as in dm_control."""
        return float(self.episode_length * self.action_repeat)

    def normalised(self, value: float) -> float | None:
        """A return as a score, 0 and 1 at the ends of `score_range`; None without one."""
        return as_score(value, self.score_range)


def as_score(value: float, score_range: tuple[float, float] | None) -> float | None:
    """A return as a score, 0 and 1 at the ends of a range of returns; None without one."""
    if score_range is None:
        return None
    low, high = score_range
    return (value - low) / (high - low)
