"""Cheetah: running backwards, running on one foot, jumping."""

from __future__ import annotations

import numpy as np
from dm_control.rl import control
from dm_control.suite import cheetah
from dm_control.utils import containers, rewards

SUITE = containers.TaggedTasks()

_TIME_LIMIT = 10.0  # seconds
_BACKWARDS_SPEED = 8.0  # metres per second, 0.8 of the stock task's running speed
_ONE_FOOT_SPEED = 6.0  # metres per second, forwards, with the other foot in the air
_UP_HEIGHT = 1.2  # height of a raised foot, and of the torso, that earns the full reward, metres
_DRIFT_SPEED = 0.5  # horizontal speed up to which a jump counts as on the spot, metres per second

BACK_FOOT = "bfoot"
FRONT_FOOT = "ffoot"

Seed = int | np.random.RandomState | None


@SUITE.add("custom")
def run_backwards(time_limit: float = _TIME_LIMIT, random: Seed = None) -> control.Environment:
    """Run backwards at 8 m/s or faster."""
    return _environment(BackwardsCheetah(random=random), time_limit)


@SUITE.add("custom")
def run_front(time_limit: float = _TIME_LIMIT, random: Seed = None) -> control.Environment:
    """Run forwards on the front foot, the back foot in the air."""
    return _environment(OneFootCheetah(raised=BACK_FOOT, random=random), time_limit)


@SUITE.add("custom")
def run_back(time_limit: float = _TIME_LIMIT, random: Seed = None) -> control.Environment:
    """Run forwards on the back foot, the front foot in the air."""
    return _environment(OneFootCheetah(raised=FRONT_FOOT, random=random), time_limit)


@SUITE.add("custom")
def jump(time_limit: float = _TIME_LIMIT, random: Seed = None) -> control.Environment:
    """Jump on the spot."""
    return _environment(JumpingCheetah(random=random), time_limit)


def _environment(task: cheetah.Cheetah, time_limit: float) -> control.Environment:
    physics = cheetah.Physics.from_xml_string(*cheetah.get_model_and_assets())
    return control.Environment(physics, task, time_limit=time_limit)


def _height(physics: cheetah.Physics, body: str) -> float:
    """Height of a body's frame over the ground, in metres."""
    return physics.named.data.xpos[body, "z"]


def _up(height: float) -> float:
    return rewards.tolerance(height, (_UP_HEIGHT, float("inf")), margin=_UP_HEIGHT / 2)


class BackwardsCheetah(cheetah.Cheetah):
    """Run backwards; initial state and observation are the stock task's."""

    def get_reward(self, physics: cheetah.Physics) -> float:
        """Linear in the backwards speed, 1 at 8 m/s."""
        return rewards.tolerance(
            physics.speed(),
            bounds=(-float("inf"), -_BACKWARDS_SPEED),
            margin=_BACKWARDS_SPEED,
            value_at_margin=0,
            sigmoid="linear",
        )


class OneFootCheetah(cheetah.Cheetah):
    """Run forwards with one foot raised.

    Args:
        raised: the body that has to be in the air, `"bfoot"` or `"ffoot"`.
        random: seed or `RandomState` of the initial states.
    """

    def __init__(self, raised: str, random: Seed = None) -> None:
        super().__init__(random=random)
        self._raised = raised

    def get_reward(self, physics: cheetah.Physics) -> float:
        """Raised foot and torso in [0, 1], times between 1/6 (at rest) and 1 (at 6 m/s)."""
        up = (3 * _up(_height(physics, self._raised)) + 2 * _up(_height(physics, "torso"))) / 5
        running = rewards.tolerance(
            physics.speed(),
            bounds=(_ONE_FOOT_SPEED, float("inf")),
            margin=_ONE_FOOT_SPEED,
            value_at_margin=0,
            sigmoid="linear",
        )
        return up * (5 * running + 1) / 6


class JumpingCheetah(cheetah.Cheetah):
    """Lift the torso and both feet without moving away."""

    def get_reward(self, physics: cheetah.Physics) -> float:
        """Mean over the feet of 5/6 for the height of foot and torso and 1/6 for staying on the spot."""
        torso = _height(physics, "torso")
        staying = rewards.tolerance(
            physics.speed(),
            bounds=(-_DRIFT_SPEED, _DRIFT_SPEED),
            margin=_DRIFT_SPEED,
            value_at_margin=0,
            sigmoid="linear",
        )
        feet = [(5 * _up((torso + _height(physics, foot)) / 2) + staying) / 6 for foot in (BACK_FOOT, FRONT_FOOT)]
        return sum(feet) / 2
