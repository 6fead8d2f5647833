"""Checkpoints of other formats, read as our own and written from them."""

from lit_pwm.checkpoints.formats.base import FOREIGN_KEY, Format, TaskNames
from lit_pwm.checkpoints.formats.format_registry import FORMATS, format_named, format_of, read_any

__all__ = ["FOREIGN_KEY", "FORMATS", "Format", "TaskNames", "format_named", "format_of", "read_any"]
