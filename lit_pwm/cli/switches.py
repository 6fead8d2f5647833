"""What the command adds to a Trainer by default, and how it steps back where an option switches its subject off."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import Checkpoint, ModelSummary, ProgressBar
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy, Strategy
from lightning.pytorch.strategies.launchers import _MultiProcessingLauncher

import callbacks
from lit_pwm.errors import LitPWMError


def default_callbacks(given: Iterable[Callback] = ()) -> list[Callback]:
    """New ones for each Trainer.

    Args:
        given: the user's own; where one of them is of the class of a default, it takes the default's place.
    """
    ours = [
        callbacks.RunProgress(),
        callbacks.NonFiniteGuard(),
        callbacks.RNGState(),
        callbacks.KeepBest(),
        callbacks.RunLock(),
        callbacks.StopOnSignals(),
        callbacks.LastCheckpoint(),
    ]
    own = list(given)
    return [callback for callback in ours if not any(isinstance(one, type(callback)) for one in own)]


def without_what_is_off(options: dict[str, Any]) -> dict[str, Any]:
    """The Trainer's options without the callbacks, and under barebones the options, that contradict a switch.

    Lightning refuses a Trainer that has a callback of a kind that is switched off. A progress bar of the user's own
    takes the place of ours.

    Args:
        options: of the Trainer; `callbacks` is a list.
    """
    bare = bool(options.get("barebones"))
    off: list[type[Callback]] = []
    if bare or options.get("enable_checkpointing") is False:
        off.append(Checkpoint)
    if bare or options.get("enable_progress_bar") is False:
        off.append(ProgressBar)
    if bare or options.get("enable_model_summary") is False:
        off.append(ModelSummary)
    kept = [callback for callback in options["callbacks"] if not isinstance(callback, tuple(off))]
    bars = [callback for callback in kept if isinstance(callback, ProgressBar)]
    if len(bars) > 1:
        kept = [callback for callback in kept if callback is not bars[-1]]  # ours is the last
    changed = options | {"callbacks": kept}
    if bare:
        kinds = ("logger", "log_every_n_steps", "num_sanity_val_steps", "enable_checkpointing", "enable_progress_bar")
        changed |= dict.fromkeys((*kinds, "enable_model_summary"))
    return changed


def check_strategy(trainer: Trainer) -> None:
    """Refuse strategies that these modules are not made for.

    Raises:
        LitPWMError: it is another than one process or plain DDP.
    """
    strategy: Strategy = trainer.strategy
    if isinstance(strategy.launcher, _MultiProcessingLauncher) or not isinstance(
        strategy, (SingleDeviceStrategy, DDPStrategy)
    ):
        name = getattr(strategy, "strategy_name", None) or type(strategy).__name__
        if isinstance(strategy.launcher, _MultiProcessingLauncher):
            name = f"ddp_{strategy.launcher._start_method}"
        raise LitPWMError(
            f"trainer.strategy is {name!r}, under which lit_pwm's modules do not train. Accepted: 'auto' (one process) "
            f"and 'ddp' (several, each started by the same command line)."
        )
