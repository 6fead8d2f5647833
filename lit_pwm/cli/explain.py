"""Exceptions of other libraries, and of the system, as one paragraph."""

from __future__ import annotations

from lit_pwm.errors import LitPWMError


def own_error(error: BaseException) -> LitPWMError | None:
    """The error of ours that `error` was raised from, if any: parsers wrap what a constructor raises in their own."""
    seen: BaseException | None = error
    while seen is not None and not isinstance(seen, LitPWMError):
        seen = seen.__cause__ or seen.__context__
    return seen
