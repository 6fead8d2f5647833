"""Planar reacher with three links, reaching a target."""

from __future__ import annotations

from importlib import resources

import numpy as np
from dm_control.rl import control
from dm_control.suite import common, reacher
from dm_control.utils import containers

SUITE = containers.TaggedTasks()

_TIME_LIMIT = 20.0  # seconds
_BIG_TARGET = 0.05  # radius, metres
_SMALL_TARGET = 0.015  # radius, metres

Seed = int | np.random.RandomState | None


@SUITE.add("custom")
def three_easy(time_limit: float = _TIME_LIMIT, random: Seed = None) -> control.Environment:
    """Reach a target of 5 cm radius."""
    return _environment(_BIG_TARGET, time_limit, random)


@SUITE.add("custom")
def three_hard(time_limit: float = _TIME_LIMIT, random: Seed = None) -> control.Environment:
    """Reach a target of 1.5 cm radius."""
    return _environment(_SMALL_TARGET, time_limit, random)


def _environment(target_radius: float, time_limit: float, random: Seed) -> control.Environment:
    # Target, reward, observation and initial state of the stock task do not depend on the number of links.
    model = resources.files("lit_pwm.tasks.custom").joinpath("reacher_three.xml").read_text(encoding="utf-8")
    physics = reacher.Physics.from_xml_string(model, common.ASSETS)
    task = reacher.Reacher(target_size=target_radius, random=random)
    return control.Environment(physics, task, time_limit=time_limit)
