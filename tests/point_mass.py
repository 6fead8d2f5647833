"""An environment of somebody's own: a mass on a plane that must not leave a field; its observations are named."""

from collections import OrderedDict

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Dict


class PointMass(gymnasium.Env):
    """Pushed by forces; a step earns the less the further it is from the middle, and leaving the field is the end."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 20}  # noqa: RUF012

    def __init__(self, field: float = 2.0, render_mode: str | None = None) -> None:
        self.field, self.render_mode = field, render_mode
        # Not in the alphabet's order (into which gymnasium brings a plain dictionary), and a choice among them.
        self.observation_space = Dict(
            OrderedDict(
                velocity=Box(-np.inf, np.inf, (2,), np.float64),
                position=Box(-field, field, (1, 2), np.float32),
                quarter=gymnasium.spaces.Discrete(4),
            )
        )
        self.action_space = Box(np.array([-2, 0], np.float32), np.array([2, 6], np.float32))

    def _observation(self) -> dict:
        quarter = int(self.position[0] > 0) + 2 * int(self.position[1] > 0)
        return {
            "velocity": self.velocity.copy(),
            "position": self.position[None].astype(np.float32),
            "quarter": np.int64(quarter),
        }

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.position, self.velocity = self.np_random.uniform(-0.5, 0.5, 2), np.zeros(2)
        return self._observation(), {}

    def step(self, action):
        if action not in self.action_space:
            raise ValueError(f"{action} is no action")
        self.force = action.astype(np.float64)
        self.velocity = 0.9 * self.velocity + 0.05 * (self.force - [0, 3])
        self.position = self.position + 0.1 * self.velocity
        gone = bool(np.abs(self.position).max() > self.field)
        return self._observation(), np.float64(1 - np.abs(self.position).mean()), gone, False, {"force": self.force}

    def render(self):
        frame = np.full((45, 70, 3), 255, np.uint8)
        y, x = ((self.position[::-1] / self.field + 1) / 2 * [44, 69]).clip(0, [44, 69]).astype(int)
        frame[y, x] = (255, 0, 0)
        return frame


class NoNumbers(PointMass):
    """Its observations stop being numbers at the third step."""

    def reset(self, *, seed=None, options=None):
        self.steps = 0
        return super().reset(seed=seed)

    def step(self, action):
        obs, *rest = super().step(action)
        self.steps += 1
        if self.steps == 3:
            obs["velocity"][1] = np.nan
        return obs, *rest


def make(**kwargs) -> gymnasium.Env:
    """The environment with a time limit."""
    return gymnasium.wrappers.TimeLimit(PointMass(**kwargs), 40)


also = make  # by another name than that of its definition


def with_actions(low, high, dtype="float32", **kwargs) -> gymnasium.Env:
    """The environment with other bounds, which may be written as texts (`"inf"`)."""
    env = make(**kwargs)
    env.action_space = Box(np.array(low, dtype), np.array(high, dtype), dtype=np.dtype(dtype))
    return env


def with_pixels(**kwargs) -> gymnasium.Env:
    """The environment with pictures among its observations."""
    env = make(**kwargs)
    env.observation_space = Dict({"camera": Box(0, 255, (8, 8, 3), np.uint8), "position": Box(-1, 1, (2,))})
    return env


def blind() -> gymnasium.Env:
    """The environment, of which there are no frames."""
    return make()


def no_environment() -> str:
    """What is none."""
    return "an environment"


gymnasium.register("PointMass-v0", PointMass, max_episode_steps=40)
gymnasium.register("PointMass-v3", PointMass, max_episode_steps=40)
