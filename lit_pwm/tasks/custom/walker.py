"""Planar walker, moving backwards."""

from __future__ import annotations

import numpy as np
from dm_control.rl import control
from dm_control.suite import walker
from dm_control.utils import containers, rewards

SUITE = containers.TaggedTasks()

_TIME_LIMIT = 25.0  # seconds
_CONTROL_TIMESTEP = 0.025  # seconds
_STAND_HEIGHT = 1.2  # height of the torso at which it counts as standing, metres
_WALK_SPEED = 1.0  # metres per second, backwards
_RUN_SPEED = 8.0  # metres per second, backwards

Seed = int | np.random.RandomState | None


@SUITE.add("custom")
def walk_backwards(time_limit: float = _TIME_LIMIT, random: Seed = None) -> control.Environment:
    """Walk backwards at 1 m/s or faster."""
    return _environment(_WALK_SPEED, time_limit, random)


@SUITE.add("custom")
def run_backwards(time_limit: float = _TIME_LIMIT, random: Seed = None) -> control.Environment:
    """Run backwards at 8 m/s or faster."""
    return _environment(_RUN_SPEED, time_limit, random)


def _environment(speed: float, time_limit: float, random: Seed) -> control.Environment:
    physics = walker.Physics.from_xml_string(*walker.get_model_and_assets())
    task = BackwardsWalker(speed, random=random)
    return control.Environment(physics, task, time_limit=time_limit, control_timestep=_CONTROL_TIMESTEP)


class BackwardsWalker(walker.PlanarWalker):
    """Stand upright, as in the stock tasks, and move backwards."""

    def get_reward(self, physics: walker.Physics) -> float:
        """Standing in [0, 1], times between 1/6 (at rest) and 1 (at full speed backwards)."""
        tall = rewards.tolerance(physics.torso_height(), (_STAND_HEIGHT, float("inf")), margin=_STAND_HEIGHT / 2)
        upright = (1 + physics.torso_upright()) / 2
        standing = (3 * tall + upright) / 4
        moving = rewards.tolerance(
            physics.horizontal_velocity(),
            bounds=(-float("inf"), -self._move_speed),
            margin=self._move_speed / 2,
            value_at_margin=0.5,
            sigmoid="linear",
        )
        return standing * (5 * moving + 1) / 6
