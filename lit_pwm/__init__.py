"""lit_pwm: a PyTorch Lightning trainer for policy learning with large, multi-task world models (PWM).

Names are resolved on first use, so that `lit_pwm.models` or `import datamodules` loads no Trainer.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_EXPORTS = {
    "WorldModelPretraining": "lit_pwm.pretraining",
    "PolicyLearning": "lit_pwm.policy_learning",
    "load_world_model": "lit_pwm.checkpoints",
    "load_policy": "lit_pwm.checkpoints",
    "LitPWMError": "lit_pwm.errors",
}
_SUBMODULES = ("checkpoints", "errors", "evaluation", "models", "tasks")
__all__ = [*_EXPORTS, *_SUBMODULES, "__version__"]

if TYPE_CHECKING:
    from lit_pwm.checkpoints import load_policy, load_world_model
    from lit_pwm.errors import LitPWMError
    from lit_pwm.policy_learning import PolicyLearning
    from lit_pwm.pretraining import WorldModelPretraining


def __getattr__(name: str) -> Any:
    if name in _EXPORTS:
        return getattr(importlib.import_module(_EXPORTS[name]), name)
    if name in _SUBMODULES:
        return importlib.import_module(f"lit_pwm.{name}")
    raise AttributeError(f"module 'lit_pwm' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
