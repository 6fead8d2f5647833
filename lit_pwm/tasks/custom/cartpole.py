"""Cart and pole with more to it than the stock tasks: a pole that is struck now and then, and episodes that fail.

The struck pole's dynamics are predicted by no function of state and action. The failing tasks end by termination, and
nothing in their rewards warns of it.
"""

from __future__ import annotations

import numpy as np
from dm_control.rl import control
from dm_control.suite import cartpole
from dm_control.utils import containers, rewards

SUITE = containers.TaggedTasks()

_TIME_LIMIT = 10.0  # seconds
_KICK_PROBABILITY = 0.1  # of each chance
_HARD_KICK = 5.06  # angular speed that a kick leaves the pole with, radians per second
_SOFT_KICK = 1.0  # likewise, little enough that a balanced pole can be kept up
_KICK_EVERY = 2  # control steps from one chance to the next: the agent steps of a registered task
_DASH_SPEED = 2.0  # speed of the cart that earns the full reward, metres per second
_LIMIT_SWITCH = 1.5  # distance from the middle of the rail at which a dash ends, metres; the rail itself ends at 1.8
_FALL_COSINE = 0.9  # cosine of the pole's angle, about 26 degrees, below which it counts as fallen

Seed = int | np.random.RandomState | None


@SUITE.add("custom")
def swingup_kicked(time_limit: float = _TIME_LIMIT, random: Seed = None) -> control.Environment:
    """Swing up a pole that is struck hard."""
    return _environment(KickedBalance(_HARD_KICK, swing_up=True, random=random), time_limit)


@SUITE.add("custom")
def balance_kicked(time_limit: float = _TIME_LIMIT, random: Seed = None) -> control.Environment:
    """Balance a pole that is struck softly."""
    return _environment(KickedBalance(_SOFT_KICK, swing_up=False, random=random), time_limit)


@SUITE.add("custom")
def dash(time_limit: float = _TIME_LIMIT, random: Seed = None) -> control.Environment:
    """Drive fast, either way, without running into a limit switch of the rail."""
    return _environment(Dash(random=random), time_limit)


@SUITE.add("custom")
def keep_up(time_limit: float = _TIME_LIMIT, random: Seed = None) -> control.Environment:
    """Keep the pole from falling for as long as possible."""
    return _environment(KeepUp(random=random), time_limit)


def _environment(task: cartpole.Balance, time_limit: float) -> control.Environment:
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


class Dash(cartpole.Balance):
    """Drive the cart fast while its pole hangs; the episode fails at a limit switch at either end of the rail.

    At full speed the switch is less than a second away, and the last step before it is paid as any other: what earns
    most over the next moment is what ends the episode. Initial state and observation are the stock swing-up's.
    """

    def __init__(self, random: Seed = None) -> None:
        super().__init__(swing_up=True, sparse=False, random=random)

    def get_reward(self, physics: cartpole.Physics) -> float:
        """1 at 2 m/s or faster, falling linearly to 0 at rest."""
        return rewards.tolerance(
            abs(float(physics.named.data.qvel["slider"][0])),
            bounds=(_DASH_SPEED, float("inf")),
            margin=_DASH_SPEED,
            value_at_margin=0.0,
            sigmoid="linear",
        )

    def get_termination(self, physics: cartpole.Physics) -> float | None:
        """Discount 0, a failure, where the cart is at a limit switch."""
        return 0.0 if abs(physics.cart_position()) >= _LIMIT_SWITCH else None


class KeepUp(cartpole.Balance):
    """Every step with the pole up earns 1; the episode fails when it has fallen (Barto et al. 1983).

    Initial state and observation are the stock balance's. Rewards are equal everywhere, so that all there is to learn
    is when the episode ends.
    """

    def __init__(self, random: Seed = None) -> None:
        super().__init__(swing_up=False, sparse=False, random=random)

    def get_reward(self, physics: cartpole.Physics) -> float:
        """1."""
        return 1.0

    def get_termination(self, physics: cartpole.Physics) -> float | None:
        """Discount 0, a failure, where the pole has fallen."""
        return 0.0 if physics.pole_angle_cosine()[0] < _FALL_COSINE else None
