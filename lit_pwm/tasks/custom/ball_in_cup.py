"""Ball in a cup, swinging the ball around on its string."""

from __future__ import annotations

import numpy as np
from dm_control.rl import control
from dm_control.suite import ball_in_cup
from dm_control.utils import containers, rewards

SUITE = containers.TaggedTasks()

_TIME_LIMIT = 20.0  # seconds
_CONTROL_TIMESTEP = 0.02  # seconds
_SWING_RADIUS = 0.5  # distance of the ball from the cup's inside that earns the full reward, metres
_SPIN_SPEED = 6.0  # speed of the ball that earns the full reward, metres per second
_START_OUTSIDE_PROBABILITY = 0.1  # share of episodes in which the ball may start outside the cup
_START_X = (-0.2, 0.2)  # ball's initial horizontal joint position, metres
_START_Z = (0.2, 0.5)  # ball's initial vertical joint position, metres

Seed = int | np.random.RandomState | None


@SUITE.add("custom")
def spin(time_limit: float = _TIME_LIMIT, random: Seed = None) -> control.Environment:
    """Get the ball out of the cup and swing it around fast."""
    physics = ball_in_cup.Physics.from_xml_string(*ball_in_cup.get_model_and_assets())
    task = SpinningBall(random=random)
    return control.Environment(physics, task, time_limit=time_limit, control_timestep=_CONTROL_TIMESTEP)


class SpinningBall(ball_in_cup.BallInCup):
    """Swing the ball; it starts inside the cup in nine episodes out of ten."""

    def initialize_episode(self, physics: ball_in_cup.Physics) -> None:
        """Draw positions of the ball until it touches nothing and lies where this episode lets it start."""
        may_be_outside = self.random.uniform(0.0, 1.0) < _START_OUTSIDE_PROBABILITY
        while True:
            physics.named.data.qpos["ball_x"] = self.random.uniform(*_START_X)
            physics.named.data.qpos["ball_z"] = self.random.uniform(*_START_Z)
            physics.after_reset()
            if physics.data.ncon == 0 and (may_be_outside or physics.in_target()):
                break
        self.after_step(physics)

    def get_reward(self, physics: ball_in_cup.Physics) -> float:
        """0 inside the cup; outside, 1/3 for the distance from it and 2/3 for the speed of the ball."""
        if physics.in_target():
            return 0.0
        away = rewards.tolerance(
            float(np.linalg.norm(physics.ball_to_target())),
            bounds=(_SWING_RADIUS, float("inf")),
            margin=_SWING_RADIUS / 2,
            value_at_margin=0.5,
            sigmoid="linear",
        )
        fast = rewards.tolerance(
            float(np.linalg.norm(physics.named.data.qvel[["ball_x", "ball_z"]])),
            bounds=(_SPIN_SPEED, float("inf")),
            margin=_SPIN_SPEED / 2,
            value_at_margin=0.5,
            sigmoid="linear",
        )
        return (away + 2 * fast) / 3
