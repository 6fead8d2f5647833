"""Continuous-time maps: velocity fields, their integration, paths to regress them on, and densities.

Mathematics only: the networks behind a velocity, and what a state means, belong to `lit_pwm.models`.
"""

from lit_pwm.flow.density import log_abs_det_jacobian
from lit_pwm.flow.integration import Dopri5, FixedStep, Solver, integrate
from lit_pwm.flow.probability_paths import TauDistribution, straight_path, times
from lit_pwm.flow.velocity import TimeEmbedding, TimeFeatures, TimeWidth, VelocityField

__all__ = [
    "Dopri5",
    "FixedStep",
    "Solver",
    "TauDistribution",
    "TimeEmbedding",
    "TimeFeatures",
    "TimeWidth",
    "VelocityField",
    "integrate",
    "log_abs_det_jacobian",
    "straight_path",
    "times",
]
