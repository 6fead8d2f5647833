"""Reading checkpoints safely and rebuilding what they hold."""

from lit_pwm.checkpoints.conversion import convert
from lit_pwm.checkpoints.native import (
    DESCRIPTION_KEY,
    describe_policy,
    describe_world_model,
    load_policy,
    load_world_model,
    read_description,
)
from lit_pwm.checkpoints.reading import read_checkpoint

__all__ = [
    "DESCRIPTION_KEY",
    "convert",
    "describe_policy",
    "describe_world_model",
    "load_policy",
    "load_world_model",
    "read_checkpoint",
    "read_description",
]
