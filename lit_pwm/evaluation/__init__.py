"""Evaluation of policies in real environments; names are resolved on first use."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_EXPORTS = {
    "EvaluationResult": "results",
    "Evaluator": "evaluator",
    "TaskResult": "results",
    "evaluate_policy": "evaluator",
    "evaluate_task": "evaluator",
    "print_result": "results",
    "record_video": "video",
    "write_result": "results",
}
__all__ = [
    "EvaluationResult",
    "Evaluator",
    "TaskResult",
    "evaluate_policy",
    "evaluate_task",
    "print_result",
    "record_video",
    "write_result",
]

if TYPE_CHECKING:
    from lit_pwm.evaluation.evaluator import Evaluator, evaluate_policy, evaluate_task
    from lit_pwm.evaluation.results import EvaluationResult, TaskResult, print_result, write_result
    from lit_pwm.evaluation.video import record_video


def __getattr__(name: str) -> Any:
    if name in _EXPORTS:
        return getattr(importlib.import_module(f"lit_pwm.evaluation.{_EXPORTS[name]}"), name)
    raise AttributeError(f"module 'lit_pwm.evaluation' has no attribute {name!r}")
