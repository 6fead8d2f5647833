"""Objects of options: what belongs together is one frozen dataclass, which a config names by its class."""

from __future__ import annotations

from typing import Self

from lit_pwm.options.ranges import check_options


class OptionObject:
    """A base of frozen dataclasses whose fields are options, with the ranges of their types checked.

    A constructor takes one as a factory (`solver: Callable[[], Solver] = FixedStep`), so that a config gives class_path
    and init_args and prints them all. An object is a factory of itself, so that Python may give it as it is.

    Raises:
        LitPWMError: a field is out of its range.
    """

    def __post_init__(self) -> None:
        check_options(type(self), vars(self))

    def __call__(self) -> Self:
        """The object."""
        return self
