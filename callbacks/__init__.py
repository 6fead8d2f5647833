"""Lightning callbacks of lit_pwm."""

from callbacks.decoded_error import DecodedErrors
from callbacks.environment_evaluation import EnvironmentEvaluation
from callbacks.last_checkpoint import LastCheckpoint
from callbacks.non_finite import NonFiniteGuard
from callbacks.progress import RunProgress
from callbacks.rng_state import RNGState

__all__ = ["DecodedErrors", "EnvironmentEvaluation", "LastCheckpoint", "NonFiniteGuard", "RNGState", "RunProgress"]
