"""The networks: plain torch, no Lightning."""

from lit_pwm.models.actors import Actor, MLPActor
from lit_pwm.models.continuation_head import ContinuationHead
from lit_pwm.models.critics import CriticEnsemble
from lit_pwm.models.dynamics import Dynamics, LatentTarget, MLPDynamics
from lit_pwm.models.encoders import Encoder, MLPEncoder
from lit_pwm.models.energy_score import GroupScore
from lit_pwm.models.flow_actor import FlowActor
from lit_pwm.models.flow_dynamics import FlowDynamics
from lit_pwm.models.flow_losses import ChainedMatching, EndPointError, EnergyLoss, FlowLoss, FlowMatching
from lit_pwm.models.heads import Head, RewardHead, TwoHotReward
from lit_pwm.models.policy import Policy
from lit_pwm.models.refinement_dynamics import RefinementDynamics
from lit_pwm.models.running_stats import RunningStats
from lit_pwm.models.sources import LatentSource, NoiseSource, Source, ZeroSource
from lit_pwm.models.two_hot import TwoHot, symexp, symlog
from lit_pwm.models.world_model import WorldModel
from lit_pwm.models.world_model_options import WorldModelOptions

__all__ = [
    "Actor",
    "ChainedMatching",
    "ContinuationHead",
    "CriticEnsemble",
    "Dynamics",
    "Encoder",
    "EndPointError",
    "EnergyLoss",
    "FlowActor",
    "FlowDynamics",
    "FlowLoss",
    "FlowMatching",
    "GroupScore",
    "Head",
    "LatentSource",
    "LatentTarget",
    "MLPActor",
    "MLPDynamics",
    "MLPEncoder",
    "NoiseSource",
    "Policy",
    "RefinementDynamics",
    "RewardHead",
    "RunningStats",
    "Source",
    "TwoHot",
    "TwoHotReward",
    "WorldModel",
    "WorldModelOptions",
    "ZeroSource",
    "symexp",
    "symlog",
]
