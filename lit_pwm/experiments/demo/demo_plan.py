"""What the demo does: its tasks, its rounds, and how many updates and episodes each has."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from lit_pwm.errors import LitPWMError

DEFAULT_MINUTES = 10.0
"""Minutes of the default plan on two idle cores, without installation, as measured."""


@dataclass(frozen=True)
class Round:
    """One round: train the world model further, train fresh policies on it, collect with them.

    Attributes:
        world_model_updates: updates of the world model, which goes on from the round before.
        policy_updates: updates of each policy.
        evaluations: how often each policy is evaluated; its best checkpoint is chosen by them.
        episodes: episodes collected for each task with its policy and noise; 0 in the last round.
    """

    world_model_updates: int
    policy_updates: int
    evaluations: int
    episodes: int


@dataclass(frozen=True)
class DemoPlan:
    """What the demo does.

    Attributes:
        tasks: the tasks, all in one world model.
        noise_episodes: episodes of each task collected with noise.
        rounds: the rounds in order.
        selection_episodes: episodes of each evaluation that chooses a checkpoint.
        report_episodes: episodes behind each reported number.
    """

    tasks: tuple[str, ...] = ("cartpole-swingup", "cup-catch", "cartpole-balance")
    noise_episodes: int = 80
    rounds: tuple[Round, ...] = (
        Round(1200, 300, 3, 20),
        Round(800, 300, 3, 20),
        Round(800, 300, 3, 20),
        Round(1500, 600, 8, 0),
    )
    selection_episodes: int = 12
    report_episodes: int = 10


def plan_for(minutes: float | None = None) -> DemoPlan:
    """The default plan, or one scaled to about so many minutes; below a tenth of it, with two rounds.

    Raises:
        LitPWMError: not a positive number.
    """
    if minutes is None:
        return DemoPlan()
    if not (math.isfinite(minutes) and minutes > 0):
        raise LitPWMError(f"--minutes is {minutes}; give a positive number, for example {DEFAULT_MINUTES:g}.")
    plan, scale = DemoPlan(), minutes / DEFAULT_MINUTES

    def scaled(number: int, least: int) -> int:
        return max(least, round(number * scale)) if number else 0

    return replace(
        plan,
        noise_episodes=min(plan.noise_episodes * 2, scaled(plan.noise_episodes, 4)),
        rounds=tuple(
            Round(
                scaled(r.world_model_updates, 20),
                scaled(r.policy_updates, 8),
                min(r.evaluations, scaled(r.evaluations, 2)),
                min(2 * r.episodes, scaled(r.episodes, 2)),
            )
            for r in (plan.rounds if scale >= 0.1 else (plan.rounds[0], plan.rounds[-1]))
        ),
        selection_episodes=min(plan.selection_episodes, scaled(plan.selection_episodes, 2)),
        report_episodes=min(plan.report_episodes, scaled(plan.report_episodes, 2)),
    )
