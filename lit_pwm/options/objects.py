"""Objects of options: what belongs together is one frozen dataclass, which a config names by its class."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Self, TypeVar

from lit_pwm.errors import LitPWMError, did_you_mean
from lit_pwm.options.ranges import check_options

D = TypeVar("D")


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


def group_of(kind: type[D], value: D | Mapping[str, object], option: str) -> D:
    """A group of options as an object of `kind`, from one or from the mapping that a config or a checkpoint holds.

    Raises:
        LitPWMError: the mapping has names that `kind` does not have.
    """
    if not isinstance(value, Mapping):
        return value
    known = [field.name for field in fields(kind)]  # ty: ignore[invalid-argument-type]
    for name in value:
        if name not in known:
            raise LitPWMError(f"The option {option} has no {name!r}. {did_you_mean(name, known)}")
    return kind(**{name: tuple(one) if isinstance(one, list) else one for name, one in value.items()})
