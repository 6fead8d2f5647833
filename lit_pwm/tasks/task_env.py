"""What the environments of all tasks have in common: actions in [-1, 1], seeds, ends of episodes, divergence."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import ArrayLike

from lit_pwm.errors import LitPWMError
from lit_pwm.tasks.foreign_code import failure
from lit_pwm.tasks.spec import DIVERGED, TaskSpec

_MAX_SEED = 2**32 - 1  # numpy's RandomState, which dm_control draws from, takes no larger one


class InvalidActionError(LitPWMError, gymnasium.error.InvalidAction):
    """An action of the wrong shape, or one that holds NaN or infinity."""


class ResetNeededError(LitPWMError, gymnasium.error.ResetNeeded):
    """`step` was called before `reset`, or after the episode's end."""


class TaskEnv(gymnasium.Env[np.ndarray, np.ndarray]):
    """A task that policies act in: flat float32 observations, actions in [-1, 1], episodes that end.

    An action is held for `action_repeat` steps of the environment, whose rewards are summed; the observation is that
    after the last one. Episodes end by truncation after `episode_length` agent steps, or before as the environment
    says; an end that is a termination is no truncation, also at the last step.

    A simulation that diverges (an error of the simulator that says so, or an observation or a reward that is not
    finite) ends the episode by truncation: that step brings the observation before it again and no reward, and its info
    holds `diverged`, what was found. Where the start of an episode diverges, so does its first step.

    Args:
        spec: of the task, complete.
        seed: of the first `reset`, unless that brings its own.
        render_mode: None or `"rgb_array"`.

    Attributes:
        task_spec: what is known of the task.

    Raises:
        LitPWMError: the seed or the render mode is none that there is.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 50}  # noqa: RUF012 - gymnasium's own field
    _divergence: tuple[type[Exception], ...] = ()
    """Errors by which the simulator says that it diverged."""

    def __init__(self, spec: TaskSpec, seed: int, render_mode: str | None) -> None:
        if render_mode not in (None, "rgb_array"):
            raise LitPWMError(
                f"The environment of {spec.name!r} was asked for with render_mode={render_mode!r}. Accepted: None, "
                f"or 'rgb_array' for frames as arrays."
            )
        self.task_spec = spec
        self.render_mode = render_mode
        self._pending_seed: int | None = checked_seed(seed)
        self._steps_left = 0
        self._diverged: str | None = None
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (spec.obs_dim,), np.float32)
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (spec.action_dim,), np.float32)

    @abstractmethod
    def _start(self, seed: int | None) -> np.ndarray:
        """Start an episode, and first the random stream of a seed if there is one; the observation, float32 [O]."""

    @abstractmethod
    def _advance(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool]:
        """Take an agent step with an action in [-1, 1], float64 [A].

        Returns:
            Observation float32 [O], reward, and whether the environment itself terminated or truncated the episode.
        """

    def reset(self, *, seed: int | None = None, options: dict[str, object] | None = None) -> tuple[np.ndarray, dict]:
        """Start an episode.

        Args:
            seed: start the random stream of this seed; None goes on in the present one.
            options: not used.

        Returns:
            The first observation, float32 [obs_dim], and an empty dict, or one with `diverged`.

        Raises:
            EnvironmentFailedError: its code raised an error, or gave what no environment may give.
            LitPWMError: the seed is not a whole number from 0 to 2**32 - 1.
        """
        seed = self._pending_seed if seed is None else checked_seed(seed)
        super().reset(seed=seed)
        self._pending_seed = None
        self._steps_left, self._diverged = self.task_spec.episode_length, None
        try:
            obs = self._start(seed)
            self._diverged = _not_finite(obs, 0.0)
        except self._divergence as error:
            obs, self._diverged = np.full(self.task_spec.obs_dim, np.nan, np.float32), str(error)
        except LitPWMError:
            raise
        except Exception as error:  # whatever the environment's code raises
            raise failure(self.task_spec.name, "reset()", error) from error
        self._obs = np.where(np.isfinite(obs), obs, np.float32(0))
        return self._obs.copy(), {} if self._diverged is None else {DIVERGED: self._diverged}

    def step(self, action: ArrayLike) -> tuple[np.ndarray, float, bool, bool, dict]:
        """Hold an action for `action_repeat` steps of the environment.

        Args:
            action: [action_dim], any real dtype; what lies outside [-1, 1] acts as the bound.

        Returns:
            Observation float32 [obs_dim], the summed reward, terminated, truncated, and an empty dict, or one with
            `diverged`.

        Raises:
            EnvironmentFailedError: as `reset`.
            InvalidActionError: wrong shape, or not all entries are finite.
            ResetNeededError: no episode is running.
        """
        if self._steps_left <= 0:
            raise ResetNeededError(
                f"step() of {self.task_spec.name!r} was called while no episode is running: an episode starts with "
                f"reset() and ends after at most {self.task_spec.episode_length} steps. Call reset() first."
            )
        values = self._checked_action(action)
        try:
            if self._diverged is None:
                obs, reward, terminated, truncated = self._advance(values)
                self._diverged = _not_finite(obs, reward)
        except self._divergence as error:
            self._diverged = str(error)
        except LitPWMError:
            raise
        except Exception as error:  # whatever the environment's code raises
            raise failure(self.task_spec.name, "step()", error) from error
        if self._diverged is not None:
            self._steps_left = 0
            return self._obs.copy(), 0.0, False, True, {DIVERGED: self._diverged}
        self._obs = obs
        self._steps_left = 0 if terminated or truncated else self._steps_left - 1
        return obs.copy(), reward, terminated, not (terminated or self._steps_left), {}

    @abstractmethod
    def render(self) -> np.ndarray | None:
        """The present frame, uint8 [height, width, 3], or None without a render mode."""

    def close(self) -> None:
        """End the episode."""
        self._steps_left = 0

    def drop_shadows(self) -> None:
        """Render without shadows, where the simulator draws any: they take more than half of a renderer's time."""

    def _checked_action(self, action: ArrayLike) -> np.ndarray:
        try:
            values = np.asarray(action, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise InvalidActionError(self._about_action(f"{type(action).__name__} {action!r}")) from error
        if values.shape != self.action_space.shape:
            raise InvalidActionError(self._about_action(f"an array of shape {list(values.shape)}"))
        if not np.isfinite(values).all():
            raise InvalidActionError(self._about_action(f"{values.tolist()}"))
        return values

    def _about_action(self, found: str) -> str:
        return (
            f"step() of {self.task_spec.name!r} was given {found} as its action. Accepted: finite numbers in [-1, 1], "
            f"of shape [{self.task_spec.action_dim}]; a padded action is cut to that width first."
        )


def checked_seed(seed: int) -> int:
    """A seed that every simulator takes.

    Raises:
        LitPWMError: it is not a whole number from 0 to 2**32 - 1.
    """
    if not isinstance(seed, (int, np.integer)) or not 0 <= seed <= _MAX_SEED:
        raise LitPWMError(f"The seed of an environment is {seed!r}. Accepted: a whole number from 0 to {_MAX_SEED}.")
    return int(seed)


def _not_finite(obs: np.ndarray, reward: float) -> str | None:
    """What is not finite, in words."""
    if not np.isfinite(obs).all():
        return f"entries {np.flatnonzero(~np.isfinite(obs))[:8].tolist()} of the observation are not finite"
    return None if math.isfinite(reward) else f"the reward is {reward}"
