"""The precisions in which every component and every metric runs."""

from __future__ import annotations

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.plugins.precision import DoublePrecision, MixedPrecision, Precision

from lit_pwm.errors import LitPWMError
from lit_pwm.models.accumulation import accumulation_dtype

SUPPORTED = ("32-true", "bf16-mixed", "64-true")
"""Lightning's names of them."""

_REASONS = {
    "16-mixed": "gradients are clipped before they are unscaled, and training all but stops",
    "16-true": "weights, reward bins and statistics are rounded to three digits: a reward of 0.9 is read as 0.824",
    "bf16-true": "weights, reward bins and statistics are rounded to three digits: a reward of 0.9 is read as 0.824",
}
_OTHER_NAMES = {"16": "16-mixed"}
"""Lightning's older names of them."""


def require_supported_precision(module: LightningModule) -> None:
    """Refuse a precision in which results would be wrong or a run would die, before anything is built.

    Raises:
        LitPWMError: the Trainer's is not one of `SUPPORTED`.
    """
    plugin = module.trainer.precision_plugin
    known = type(plugin) is Precision or isinstance(plugin, (MixedPrecision, DoublePrecision))
    if known and plugin.precision in SUPPORTED:
        return
    raise _refusal(str(plugin.precision) if plugin.precision not in SUPPORTED else type(plugin).__name__)


def require_supported_option(precision: object) -> None:
    """Refuse a value of the Trainer's option `precision`, for which Lightning would take another one on some devices.

    Raises:
        LitPWMError: it names a precision that is refused.
    """
    name = _OTHER_NAMES.get(str(precision), str(precision))
    if name in _REASONS:
        raise _refusal(name)


def _refusal(name: str) -> LitPWMError:
    reason = _REASONS.get(name, "no component of lit_pwm has been made for it")
    return LitPWMError(
        f"trainer.precision is {name!r}, under which {reason}. Use '32-true', 'bf16-mixed' (for large networks on "
        f"recent GPUs) or '64-true'."
    )


def sums_dtype(module: LightningModule) -> torch.dtype:
    """The precision of a module's statistics and metrics on the device where its Trainer will run it."""
    return accumulation_dtype(module.device if module._trainer is None else module.trainer.strategy.root_device)
