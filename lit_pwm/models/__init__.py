"""The networks: plain torch, no Lightning."""

from lit_pwm.models.actors import Actor, MLPActor
from lit_pwm.models.critics import CriticEnsemble
from lit_pwm.models.dynamics import Dynamics, LatentTarget, MLPDynamics
from lit_pwm.models.energy_score import GroupScore
from lit_pwm.models.flow_actor import FlowActor
from lit_pwm.models.flow_dynamics import FlowDynamics
from lit_pwm.models.flow_losses import ChainedMatching, EndPointError, EnergyLoss, FlowMatching
from lit_pwm.models.policy import Policy
from lit_pwm.models.refinement_dynamics import RefinementDynamics
from lit_pwm.models.running_stats import RunningStats
from lit_pwm.models.sources import LatentSource, NoiseSource, ZeroSource
from lit_pwm.models.two_hot import TwoHot, symexp, symlog
from lit_pwm.models.world_model import WorldModel

__all__ = [
    "Actor",
    "ChainedMatching",
    "CriticEnsemble",
    "Dynamics",
    "EndPointError",
    "EnergyLoss",
    "FlowActor",
    "FlowDynamics",
    "FlowMatching",
    "GroupScore",
    "LatentSource",
    "LatentTarget",
    "MLPActor",
    "MLPDynamics",
    "NoiseSource",
    "Policy",
    "RefinementDynamics",
    "RunningStats",
    "TwoHot",
    "WorldModel",
    "ZeroSource",
    "symexp",
    "symlog",
]
