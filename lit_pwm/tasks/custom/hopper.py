"""Hopper, hopping backwards."""

from __future__ import annotations

import numpy as np
from dm_control.rl import control
from dm_control.suite import hopper
from dm_control.utils import containers, rewards

SUITE = containers.TaggedTasks()

_TIME_LIMIT = 20.0  # seconds
_CONTROL_TIMESTEP = 0.02  # seconds
_STAND_HEIGHT = (0.6, 2.0)  # height of torso over foot that counts as standing, metres
_HOP_SPEED = 1.0  # metres per second, backwards; half of the stock task's

Seed = int | np.random.RandomState | None


@SUITE.add("custom")
def hop_backwards(time_limit: float = _TIME_LIMIT, random: Seed = None) -> control.Environment:
    """Hop backwards at 1 m/s or faster."""
    physics = hopper.Physics.from_xml_string(*hopper.get_model_and_assets())
    task = BackwardsHopper(random=random)
    return control.Environment(physics, task, time_limit=time_limit, control_timestep=_CONTROL_TIMESTEP)


class BackwardsHopper(hopper.Hopper):
    """Stand upright and hop backwards; initial state and observation are the stock task's."""

    def __init__(self, random: Seed = None) -> None:
        super().__init__(hopping=True, random=random)

    def get_reward(self, physics: hopper.Physics) -> float:
        """1 while standing and at 1 m/s backwards, falling linearly to 0.5 at 0.5 m/s and 0 at rest."""
        standing = rewards.tolerance(physics.height(), _STAND_HEIGHT)
        hopping = rewards.tolerance(
            physics.speed(),
            bounds=(-float("inf"), -_HOP_SPEED),
            margin=_HOP_SPEED / 2,
            value_at_margin=0.5,
            sigmoid="linear",
        )
        return standing * hopping
