"""Environments of gymnasium as tasks, with the conventions of all tasks."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box

from lit_pwm.tasks.completing import read_from
from lit_pwm.tasks.foreign_code import EnvironmentFailedError, close_foreign, failure, in_words
from lit_pwm.tasks.gymnasium_loading import load_gymnasium
from lit_pwm.tasks.rendering import CannotRenderError
from lit_pwm.tasks.spec import TaskSpec
from lit_pwm.tasks.task_env import TaskEnv

_FRAMES_PER_SECOND = 30  # where an environment does not say
_FLAG = "True or False"


class GymnasiumTaskEnv(TaskEnv):
    """An environment of gymnasium as a task; made by `lit_pwm.tasks.make_env`.

    Observations are flattened as `gymnasium.spaces.flatten` does with the environment's own space. Actions in [-1, 1]
    are mapped to its bounds: `(low + high) / 2 + action (high - low) / 2`. Its infos are not handed on.

    Args:
        spec: of the task.
        seed: 0 to 2**32 - 1.
        render_mode: None or `"rgb_array"`.

    Attributes:
        env: the environment as its function made it.

    Raises:
        CannotRenderError: frames are wanted, and there can be none.
        LitPWMError: as `lit_pwm.tasks.make_env`.
    """

    def __init__(self, spec: TaskSpec, seed: int = 0, render_mode: str | None = None) -> None:
        env = load_gymnasium(spec, rendering=render_mode is not None)
        try:
            super().__init__(read_from(env, spec), seed, render_mode)
            if render_mode is not None:
                self._check_frame(env)
        except BaseException:
            close_foreign(env, spec.name)
            raise
        self.env = env
        self._space, actions = env.observation_space, env.action_space
        assert isinstance(actions, Box)  # `read_from` refuses others
        self._actions = actions
        low, high = (np.asarray(bound, np.float64).reshape(-1) for bound in (actions.low, actions.high))
        # In this form, actions of an environment whose bounds are -1 and 1 stay what they are, to the bit.
        self._centre, self._half = low + (high - low) / 2, (high - low) / 2
        fps = (env.metadata or {}).get("render_fps")
        fps = fps if isinstance(fps, (int, float)) and 0 < fps < np.inf else _FRAMES_PER_SECOND
        self.metadata = {**type(self).metadata, "render_fps": max(1, round(fps / self.task_spec.action_repeat))}

    def _start(self, seed: int | None) -> np.ndarray:
        found = self.env.reset(seed=seed)
        if not isinstance(found, tuple) or len(found) != 2:
            raise self._wrong("what reset() returned", found, "a tuple of the observation and a dictionary")
        return self._flat(found[0])

    def _advance(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool]:
        control = self._centre + self._half * np.clip(action, -1, 1)
        control = control.astype(self._actions.dtype).reshape(self._actions.shape)
        np.clip(control, self._actions.low, self._actions.high, out=control)  # rounding may lead beyond them
        total = 0.0
        for _ in range(self.task_spec.action_repeat):
            found = self.env.step(control.copy())
            if not isinstance(found, tuple) or len(found) != 5:
                raise self._wrong(
                    "what step() returned", found, "a tuple of observation, reward, terminated, truncated and info"
                )
            obs, reward, terminated, truncated, _ = found
            total += self._number("reward", reward, "a real number")
            ends = [self._number("terminated", terminated, _FLAG), self._number("truncated", truncated, _FLAG)]
            if not set(ends) <= {0, 1}:
                raise self._wrong("terminated and truncated", (terminated, truncated), _FLAG)
            if any(ends):
                break
        return self._flat(obs), float(total), bool(ends[0]), bool(ends[1])

    def _number(self, name: str, value: Any, accepted: str) -> float:
        """A number that may come as an array of one entry."""
        found = np.asarray(value)
        if found.size != 1 or found.dtype.kind not in "biuf":
            raise self._wrong(name, value, accepted)
        return float(found.item())

    def _wrong(self, name: str, found: object, accepted: str) -> EnvironmentFailedError:
        return EnvironmentFailedError(
            f"The environment of {self.task_spec.name!r} gave {' '.join(repr(found).split())[:120]} as {name}. "
            f"Accepted, as in gymnasium's own interface: {accepted}. Mend the environment."
        )

    def _flat(self, obs: Any) -> np.ndarray:
        with np.errstate(over="ignore", invalid="ignore"):  # what becomes infinite is seen by `TaskEnv`
            flat = np.array(gymnasium.spaces.flatten(self._space, obs), dtype=np.float32)
        if flat.shape != self.observation_space.shape:
            raise EnvironmentFailedError(
                f"The environment of {self.task_spec.name!r} gave an observation of {flat.size} numbers, and its "
                f"observation_space has {self.task_spec.obs_dim}. Mend the environment."
            )
        return flat

    def render(self) -> np.ndarray | None:
        """The present frame, uint8 [height, width, 3] of the environment's own size, or None without a render mode."""
        if self.render_mode is None:
            return None
        try:
            frame = np.array(self.env.render())
        except Exception as error:  # whatever the rendering library raises
            raise failure(self.task_spec.name, "render()", error) from error
        if frame.shape != self._frame_shape:
            raise self._wrong(
                f"a frame of shape {list(frame.shape)}", frame.dtype, f"the shape of its first, {self._frame_shape}"
            )
        return frame

    def close(self) -> None:
        """End the episode and close the environment, after which it can be of no more use."""
        super().close()
        close_foreign(self.env, self.task_spec.name)

    def drop_shadows(self) -> None:
        """Render without shadows, if it is MuJoCo that renders."""
        model = getattr(self.env.unwrapped, "model", None)
        if hasattr(model, "light_castshadow"):
            model.light_castshadow[:] = False

    def _check_frame(self, env: gymnasium.Env[Any, Any]) -> None:
        """Make sure that there are frames, before anyone counts on them."""
        try:
            env.reset(seed=0)
            frame = np.asarray(env.render())
        except Exception as error:  # whatever the rendering library raises
            said = in_words(error)
            raise CannotRenderError(
                f"Frames of {self.task_spec.name!r} were asked for, and its environment could not render: {said}. Use "
                f"render_mode=None, or mend it.",
                f"its environment could not render ({said})",
            ) from error
        if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8:
            raise CannotRenderError(
                f"Frames of {self.task_spec.name!r} were asked for, and its environment gave {frame.dtype} of shape "
                f"{list(frame.shape)} in the mode 'rgb_array'. A frame is uint8 [height, width, 3].",
                "its environment's frames are no pictures in RGB",
            )
        self._frame_shape = frame.shape
