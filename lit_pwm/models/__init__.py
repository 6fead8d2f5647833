"""The networks: plain torch, no Lightning."""

from lit_pwm.models.actors import Actor, MLPActor
from lit_pwm.models.critics import CriticEnsemble
from lit_pwm.models.dynamics import Dynamics, LatentTarget, MLPDynamics
from lit_pwm.models.policy import Policy
from lit_pwm.models.running_stats import RunningStats
from lit_pwm.models.two_hot import TwoHot, symexp, symlog
from lit_pwm.models.world_model import WorldModel

__all__ = [
    "Actor",
    "CriticEnsemble",
    "Dynamics",
    "LatentTarget",
    "MLPActor",
    "MLPDynamics",
    "Policy",
    "RunningStats",
    "TwoHot",
    "WorldModel",
    "symexp",
    "symlog",
]
