"""Cart and pole whose pole is struck now and then: dynamics that no function of state and action predicts."""

from __future__ import annotations

import numpy as np
from dm_control.rl import control
from dm_control.suite import cartpole
from dm_control.utils import containers

SUITE = containers.TaggedTasks()

_TIME_LIMIT = 10.0  # seconds
_KICK_PROBABILITY = 0.1  # of each chance
_HARD_KICK = 5.06  # angular speed that a kick leaves the pole with, radians per second
_SOFT_KICK = 1.0  # likewise, little enough that a balanced pole can be kept up
_KICK_EVERY = 2  # control steps from one chance to the next: the agent steps of a registered task

Seed = int | np.random.RandomState | None


@SUITE.add("custom")
def swingup_kicked(time_limit: float = _TIME_LIMIT, random: Seed = None) -> control.Environment:
    """Swing up a pole that is struck hard."""
    return _environment(KickedBalance(_HARD_KICK, swing_up=True, random=random), time_limit)


@SUITE.add("custom")
def balance_kicked(time_limit: float = _TIME_LIMIT, random: Seed = None) -> control.Environment:
    """Balance a pole that is struck softly."""
    return _environment(KickedBalance(_SOFT_KICK, swing_up=False, random=random), time_limit)


def _environment(task: KickedBalance, time_limit: float) -> control.Environment:
    physics = cartpole.Physics.from_xml_string(*cartpole.get_model_and_assets())
    return control.Environment(physics, task, time_limit=time_limit)


class KickedBalance(cartpole.Balance):
    """The stock task, but for kicks: at every second control step, before its physics, perhaps one.

    A kick sets the pole's angular velocity to plus or minus `kick_speed`, either sign as likely. Every second control
    step is once in an agent step of the registered tasks, whose action repeat is 2; the chances are counted in control
    steps, so that the physics does not depend on how long an agent holds its actions. Chances are drawn from the task's
    own random stream, one number each, after those of the initial state: the seed settles the whole episode. Initial
    state, observation and reward are the stock task's.

    Args:
        kick_speed: radians per second.
        swing_up: start from the hanging pole, else near the upright one.
        kick_probability: of each chance, both signs together.
        random: seed or stream.
    """

    def __init__(
        self,
        kick_speed: float,
        swing_up: bool,
        kick_probability: float = _KICK_PROBABILITY,
        random: Seed = None,
    ) -> None:
        super().__init__(swing_up=swing_up, sparse=False, random=random)
        self.kick_speed, self.kick_probability = kick_speed, kick_probability
        self._control_steps = 0

    def initialize_episode(self, physics: cartpole.Physics) -> None:
        """The stock task's initial state."""
        super().initialize_episode(physics)
        self._control_steps = 0

    def before_step(self, action: np.ndarray, physics: cartpole.Physics) -> None:
        """Set the control, and the pole's velocity if it is struck."""
        super().before_step(action, physics)
        if self._control_steps % _KICK_EVERY == 0:
            chance = self.random.random_sample()
            if chance < self.kick_probability:
                sign = 1.0 if chance < self.kick_probability / 2 else -1.0
                # The model's integrator (Runge-Kutta) starts from positions and velocities alone, so nothing is stale.
                physics.data.qvel[1] = sign * self.kick_speed
        self._control_steps += 1
