"""Values of a Trainer verb's options that are refused before anything is built."""

from __future__ import annotations

from typing import Annotated, Any

from lit_pwm.cli.given import Option
from lit_pwm.errors import LitPWMError
from lit_pwm.options import Count, CountOrZero, Range, Seed, refusal

_UNCHECKED: dict[str, Any] = {
    "trainer.check_val_every_n_epoch": Count | None,
    "trainer.log_every_n_steps": CountOrZero | None,
    "trainer.num_sanity_val_steps": Annotated[int, Range(-1)] | None,
    "trainer.min_steps": CountOrZero | None,
    "trainer.min_epochs": CountOrZero | None,
    "trainer.val_check_interval": Count | Annotated[float, Range(0, 1, open_least=True)] | str | None,
    "seed_everything": bool | Seed,
}
"""Ranges of the Trainer's own options that Lightning does not check, or checks in words that name no option."""


def check_ranges(options: list[Option]) -> None:
    """Refuse values of options that would fail late, or in words that name no option.

    Raises:
        LitPWMError: a value of the Trainer's is out of its range; or a text holds NUL, which no path or name can.
    """
    for option in options:
        if _holds_nul(option.value):
            raise LitPWMError(
                f"The option {option.name!r} is {option.value!r} {option.source}, which holds a NUL character (\\0). "
                f"Write it without."
            )
        hint = _UNCHECKED.get(option.name)
        if hint is not None and (accepted := refusal(hint, option.value)) is not None:
            raise LitPWMError(f"The option {option.name!r} is {option.value!r} {option.source}; give {accepted}.")


def _holds_nul(value: Any) -> bool:
    if isinstance(value, str):
        return "\0" in value
    items = [*value, *value.values()] if isinstance(value, dict) else value
    return isinstance(items, list) and any(map(_holds_nul, items))
