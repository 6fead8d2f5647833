"""dm_control tasks as gymnasium environments, as TD-MPC2 trains and evaluates on them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from lit_pwm.errors import LitPWMError
from lit_pwm.tasks.loading import load
from lit_pwm.tasks.spec import TaskSpec
from lit_pwm.tasks.task_env import TaskEnv, checked_seed

if TYPE_CHECKING:
    from dm_control.mujoco import Physics
    from dm_control.suite.base import Task


class DMControlEnv(TaskEnv):
    """A dm_control task with TD-MPC2's conventions; made by `lit_pwm.tasks.make_env`.

    `reset()` starts the first episode of dm_control's stream for the seed (`task_kwargs={'random': seed}`). A task of
    dm_control that ends early with a discount of 0 sets `terminated`, as those of the set `failing` do. dm_control's
    PhysicsError is a divergence.

    Args:
        spec: of the task.
        seed: 0 to 2**32 - 1.
        render_mode: None or `"rgb_array"`.
        width: of a frame, in pixels.
        height: of a frame, in pixels.
        camera: number or name of a camera of the model, -1 for MuJoCo's free camera; None for the model's first camera,
            or the free one where it has none.

    Attributes:
        physics: dm_control's `Physics`.
        task: dm_control's `Task`.

    Raises:
        LitPWMError: as `lit_pwm.tasks.make_env`.
    """

    def __init__(
        self,
        spec: TaskSpec,
        seed: int = 0,
        render_mode: str | None = None,
        *,
        width: int = 256,
        height: int = 256,
        camera: int | str | None = None,
    ) -> None:
        super().__init__(spec, seed, render_mode)
        environment = load(spec, checked_seed(seed), rendering=render_mode is not None)
        self.physics: Physics = environment.physics
        self.task: Task = environment.task
        self._environment = environment
        from dm_control.rl.control import PhysicsError  # loaded by now

        self._divergence = (PhysicsError,)
        self._control_steps = round(environment.control_timestep() / self.physics.timestep())
        self._height, self._width = height, width
        self._camera = camera if camera is not None else 0 if self.physics.model.ncam else -1
        if render_mode is not None:
            self._check_frame()

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
        agent_timestep = environment.control_timestep() * spec.action_repeat
        self.metadata = {**type(self).metadata, "render_fps": max(1, round(1 / agent_timestep))}

    def _start(self, seed: int | None) -> np.ndarray:
        if seed is not None:
            self.task.random.seed(seed)
        return _flat(self._environment.reset().observation)

    def _advance(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool]:
        physics, task = self.physics, self.task
        control = self._action_low + self._action_scale * (action + 1.0)
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
        return _flat(task.get_observation(physics)), float(reward), discount == 0.0, discount not in (None, 0.0)

    def render(self) -> np.ndarray | None:
        """The present frame, uint8 [height, width, 3], or None without a render mode."""
        if self.render_mode is None:
            return None
        return self.physics.render(height=self._height, width=self._width, camera_id=self._camera)

    def drop_shadows(self) -> None:
        """Render without shadows."""
        self.physics.model.light_castshadow[:] = False

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


def _flat(parts: dict[str, Any]) -> np.ndarray:
    with np.errstate(over="ignore", invalid="ignore"):  # what becomes infinite is seen by `TaskEnv`
        return np.concatenate([np.ravel(part) for part in parts.values()], dtype=np.float32, casting="same_kind")
