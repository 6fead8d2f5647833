"""dm_control tasks as gymnasium environments, as TD-MPC2 trains and evaluates on them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import gymnasium
import numpy as np
from gymnasium.envs.registration import EnvSpec
from numpy.typing import ArrayLike

from lit_pwm.errors import LitPWMError
from lit_pwm.tasks.loading import load
from lit_pwm.tasks.registry import DIVERGED, TaskSpec, task_spec

if TYPE_CHECKING:
    from dm_control.mujoco import Physics
    from dm_control.suite.base import Task

_MAX_SEED = 2**32 - 1  # numpy's RandomState, which dm_control draws from, takes no larger one


class InvalidActionError(LitPWMError, gymnasium.error.InvalidAction):
    """An action of the wrong shape, or one that holds NaN or infinity."""


class ResetNeededError(LitPWMError, gymnasium.error.ResetNeeded):
    """`step` was called before `reset`, or after the episode's end."""


def make_env(
    task: str | TaskSpec,
    seed: int = 0,
    render_mode: str | None = None,
    *,
    width: int = 256,
    height: int = 256,
    camera: int | str = 0,
) -> DMControlEnv:
    """The environment of a task.

    `reset()` starts the first episode of dm_control's stream for `seed` (`task_kwargs={'random': seed}`) and later
    calls go on in that stream; `reset(seed=s)` starts the stream of `s`, whatever was run before.

    Args:
        task: a registered name such as `"cheetah-run-backwards"`, or a spec.
        seed: 0 to 2**32 - 1.
        render_mode: None, or `"rgb_array"` to have `render()` return frames, also without a display.
        width: of a frame, in pixels.
        height: of a frame, in pixels.
        camera: number or name of a camera of the model, or -1 for MuJoCo's free camera.

    Returns:
        A gymnasium environment with observations float32 [obs_dim] and actions in [-1, 1], float32 [action_dim].

    Raises:
        LitPWMError: the task is not known or has no environment here, its dimensions are not those of its spec, an
            option is not one of those above, or nothing on this machine can render.
    """
    spec = task if isinstance(task, TaskSpec) else task_spec(task)
    env = DMControlEnv(spec, seed, render_mode, width=width, height=height, camera=camera)
    options = {"task": task, "seed": seed, "width": width, "height": height, "camera": camera}
    env.spec = EnvSpec(
        spec.name,
        entry_point=f"{__name__}:make_env",
        order_enforce=False,
        disable_env_checker=True,
        kwargs=options,
    )
    return env


class DMControlEnv(gymnasium.Env[np.ndarray, np.ndarray]):
    """A dm_control task with TD-MPC2's conventions; made by `make_env`.

    An action is held for `action_repeat` control steps, whose rewards are summed; the observation is that after the
    last one. Episodes end by truncation after `episode_length` agent steps. A task of dm_control that ends early with a
    discount of 0 sets `terminated`; none of the registered ones does.

    A simulation that diverges (dm_control's PhysicsError, or an observation or a reward that is not finite) ends the
    episode by truncation: that step brings the observation before it again and no reward, and its info holds
    `diverged`, what was found. Where the start of an episode diverges, so does its first step.

    Attributes:
        physics: dm_control's `Physics`.
        task: dm_control's `Task`.
        task_spec: what the registry says of the task.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 50}  # noqa: RUF012 - gymnasium's own field

    def __init__(
        self,
        spec: TaskSpec,
        seed: int = 0,
        render_mode: str | None = None,
        *,
        width: int = 256,
        height: int = 256,
        camera: int | str = 0,
    ) -> None:
        if render_mode not in (None, "rgb_array"):
            raise LitPWMError(
                f"The environment of {spec.name!r} was asked for with render_mode={render_mode!r}. Accepted: None, "
                f"or 'rgb_array' for frames as arrays."
            )
        seed = _checked_seed(seed)
        environment = load(spec, seed, rendering=render_mode is not None)
        self.task_spec = spec
        self.physics: Physics = environment.physics
        self.task: Task = environment.task
        self.render_mode = render_mode
        self._environment = environment
        from dm_control.rl.control import PhysicsError  # loaded by now

        self._physics_error = PhysicsError
        self._control_steps = round(environment.control_timestep() / self.physics.timestep())
        self._height, self._width, self._camera = height, width, camera
        if render_mode is not None:
            self._check_frame()
        self._steps_left = 0
        self._diverged: str | None = None
        self._pending_seed: int | None = seed  # of the first reset, unless that brings its own

        actions = environment.action_spec()
        # TD-MPC2 maps actions to dm_control's range in this form, which in floating point is not quite the identity.
        self._action_low = np.asarray(actions.minimum, dtype=np.float64)
        self._action_scale = (np.asarray(actions.maximum, dtype=np.float64) - self._action_low) / 2
        obs_dim = sum(int(np.prod(part.shape)) for part in environment.observation_spec().values())
        if (obs_dim, actions.shape) != (spec.obs_dim, (spec.action_dim,)):
            raise LitPWMError(
                f"The spec of {spec.name!r} says {spec.obs_dim} observation and {spec.action_dim} action entries, but "
                f"{spec.task!r} of '{spec.suite}.{spec.domain}' has {obs_dim} and {actions.shape[0]}. Give the spec "
                f"the environment's own dimensions."
            )
        if not self.physics.model.actuator_ctrllimited.all():
            raise LitPWMError(
                f"The environment of {spec.name!r}, {spec.task!r} of '{spec.suite}.{spec.domain}', has actuators "
                f"without a control range, so that actions in [-1, 1] mean nothing to it. Bound them in its model."
            )
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (spec.obs_dim,), np.float32)
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (spec.action_dim,), np.float32)
        agent_timestep = environment.control_timestep() * spec.action_repeat
        self.metadata = {**type(self).metadata, "render_fps": max(1, round(1 / agent_timestep))}

    def reset(self, *, seed: int | None = None, options: dict[str, object] | None = None) -> tuple[np.ndarray, dict]:
        """Start an episode.

        Args:
            seed: start dm_control's random stream of this seed; None goes on in the present one.
            options: not used.

        Returns:
            The first observation, float32 [obs_dim], and an empty dict.

        Raises:
            LitPWMError: the seed is not a whole number from 0 to 2**32 - 1.
        """
        seed = self._pending_seed if seed is None else _checked_seed(seed)
        if seed is not None:
            self.task.random.seed(seed)
        super().reset(seed=seed)
        self._pending_seed = None
        self._steps_left, self._diverged = self.task_spec.episode_length, None
        try:
            obs = _flat(self._environment.reset().observation)
            self._diverged = _not_finite(obs, 0.0)
        except self._physics_error as error:
            obs, self._diverged = np.full(self.task_spec.obs_dim, np.nan, np.float32), str(error)
        self._obs = np.where(np.isfinite(obs), obs, np.float32(0))
        return self._obs.copy(), {} if self._diverged is None else {DIVERGED: self._diverged}

    def step(self, action: ArrayLike) -> tuple[np.ndarray, float, bool, bool, dict]:
        """Hold an action for `action_repeat` control steps.

        Args:
            action: [action_dim], any real dtype; MuJoCo clamps what lies outside [-1, 1].

        Returns:
            Observation float32 [obs_dim], the control steps' summed reward, terminated, truncated, and an empty dict,
            or one with `diverged`.

        Raises:
            InvalidActionError: wrong shape, or not all entries are finite.
            ResetNeededError: no episode is running.
        """
        if self._steps_left <= 0:
            raise ResetNeededError(
                f"step() of {self.task_spec.name!r} was called while no episode is running: an episode starts with "
                f"reset() and ends after {self.task_spec.episode_length} steps. Call reset() first."
            )
        control = self._action_low + self._action_scale * (self._checked_action(action) + 1.0)
        try:
            if self._diverged is None:
                obs, reward, terminated, truncated = self._advanced(control)
                self._diverged = _not_finite(obs, reward)
        except self._physics_error as error:
            self._diverged = str(error)
        if self._diverged is not None:
            self._steps_left = 0
            return self._obs.copy(), 0.0, False, True, {DIVERGED: self._diverged}
        self._obs = obs
        return obs, reward, terminated, truncated, {}

    def _advanced(self, control: np.ndarray) -> tuple[np.ndarray, float, bool, bool]:
        physics, task = self.physics, self.task
        reward, discount = 0.0, None
        # As dm_control's Environment.step, without the observation between the control steps, which nobody sees.
        for _ in range(self.task_spec.action_repeat):
            task.before_step(control, physics)
            physics.step(self._control_steps)
            task.after_step(physics)
            reward += task.get_reward(physics)
            discount = task.get_termination(physics)
            if discount is not None:
                break
        self._steps_left = self._steps_left - 1 if discount is None else 0
        terminated = discount == 0.0
        return _flat(task.get_observation(physics)), float(reward), terminated, not (terminated or self._steps_left)

    def render(self) -> np.ndarray | None:
        """The present frame, uint8 [height, width, 3], or None without a render mode."""
        if self.render_mode is None:
            return None
        return self.physics.render(height=self._height, width=self._width, camera_id=self._camera)

    def close(self) -> None:
        """End the episode. Rendering contexts go with the physics, when the environment is collected."""
        self._steps_left = 0

    def _check_frame(self) -> None:
        model, buffer = self.physics.model, self.physics.model.vis.global_
        cameras = [-1, *range(model.ncam), *(model.id2name(i, "camera") for i in range(model.ncam))]
        if self._camera not in cameras:
            raise LitPWMError(
                f"Frames of {self.task_spec.name!r} were asked for from camera {self._camera!r}. Accepted: {cameras}, "
                f"where -1 is MuJoCo's free camera."
            )
        if not (0 < self._width <= buffer.offwidth and 0 < self._height <= buffer.offheight):
            raise LitPWMError(
                f"Frames of {self.task_spec.name!r} were asked for of {self._width} x {self._height} pixels. Accepted: "
                f"from 1 x 1 to {buffer.offwidth} x {buffer.offheight}, the size of the model's frame buffer."
            )

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


def _not_finite(obs: np.ndarray, reward: float) -> str | None:
    """What is not finite, in words."""
    if not np.isfinite(obs).all():
        return f"entries {np.flatnonzero(~np.isfinite(obs))[:8].tolist()} of the observation are not finite"
    return None if math.isfinite(reward) else f"the reward is {reward}"


def _flat(parts: dict[str, Any]) -> np.ndarray:
    with np.errstate(over="ignore", invalid="ignore"):  # what becomes infinite is found by `_not_finite`
        return np.concatenate([np.ravel(part) for part in parts.values()], dtype=np.float32, casting="same_kind")


def _checked_seed(seed: int) -> int:
    if not isinstance(seed, (int, np.integer)) or not 0 <= seed <= _MAX_SEED:
        raise LitPWMError(f"The seed of an environment is {seed!r}. Accepted: a whole number from 0 to {_MAX_SEED}.")
    return int(seed)
