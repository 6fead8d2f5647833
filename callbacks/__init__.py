"""Lightning callbacks of lit_pwm."""

from callbacks.checkpoint_adapter import CheckpointAdapter
from callbacks.compute_ledger import ComputeLedger
from callbacks.continuation_scores import ContinuationScores
from callbacks.cuda_graphs import CUDAGraphs
from callbacks.dynamics_smoothness import DynamicsSmoothness
from callbacks.environment_evaluation import EnvironmentEvaluation
from callbacks.finetune_schedule import FinetuneSchedule
from callbacks.gradient_diagnostics import GradientDiagnostics
from callbacks.keep_best import KeepBest
from callbacks.last_checkpoint import LastCheckpoint
from callbacks.non_finite import NonFiniteGuard
from callbacks.observation_errors import DecodedErrors
from callbacks.progress import RunProgress
from callbacks.rng_state import RNGState
from callbacks.run_lock import RunLock
from callbacks.stop_on_signals import StopOnSignals
from lit_pwm.updates.checkpoint_io import WholeCheckpointIO

__all__ = [
    "CUDAGraphs",
    "CheckpointAdapter",
    "ComputeLedger",
    "ContinuationScores",
    "DecodedErrors",
    "DynamicsSmoothness",
    "EnvironmentEvaluation",
    "FinetuneSchedule",
    "GradientDiagnostics",
    "KeepBest",
    "LastCheckpoint",
    "NonFiniteGuard",
    "RNGState",
    "RunLock",
    "RunProgress",
    "StopOnSignals",
    "WholeCheckpointIO",
]
