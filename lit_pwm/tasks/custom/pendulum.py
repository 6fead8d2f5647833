"""Pendulum, spinning."""

from __future__ import annotations

import numpy as np
from dm_control.rl import control
from dm_control.suite import pendulum
from dm_control.utils import containers, rewards

SUITE = containers.TaggedTasks()

_TIME_LIMIT = 20.0  # seconds
_SPIN_SPEED = 9.0  # angular speed that earns the full reward, radians per second

Seed = int | np.random.RandomState | None


@SUITE.add("custom")
def spin(time_limit: float = _TIME_LIMIT, random: Seed = None) -> control.Environment:
    """Spin the pole, in either direction."""
    physics = pendulum.Physics.from_xml_string(*pendulum.get_model_and_assets())
    return control.Environment(physics, SpinningPole(random=random), time_limit=time_limit)


class SpinningPole(pendulum.SwingUp):
    """Spin at 9 rad/s or faster; initial state and observation are the stock task's."""

    def get_reward(self, physics: pendulum.Physics) -> float:
        """1 at 9 rad/s or faster, falling linearly to 0.5 at 4.5 rad/s and 0 at rest."""
        return rewards.tolerance(
            float(np.linalg.norm(physics.angular_velocity())),
            bounds=(_SPIN_SPEED, float("inf")),
            margin=_SPIN_SPEED / 2,
            value_at_margin=0.5,
            sigmoid="linear",
        )
