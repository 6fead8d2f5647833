"""Equal numbers of parameters: the width at which a swapped component has as many as the one it is compared with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict, TypeVar

import torch
from torch import nn

from lit_pwm.errors import LitPWMError
from lit_pwm.models.component import Component

C = TypeVar("C", bound=Component)
_WIDEST = 2**20
_ROUND = 8


def count_parameters(module: nn.Module) -> int:
    """The number of parameters; one that is shared counts once."""
    return sum(parameter.numel() for parameter in module.parameters())


class ParityRecord(TypedDict):
    """A `Parity` in JSON, with its difference."""

    component: str
    width_option: str | None
    width: int | list[int] | None
    parameters: int
    reference: str
    reference_parameters: int
    difference: float


@dataclass(frozen=True)
class Parity:
    """How a component's size compares with that of its reference; plain values.

    Attributes:
        component: name of its class.
        width_option: its option that was scaled.
        width: that option's value.
        parameters: its number of parameters.
        reference: name of the reference's class.
        reference_parameters: the reference's number of parameters.
    """

    component: str
    width_option: str | None
    width: int | list[int] | None
    parameters: int
    reference: str
    reference_parameters: int

    @property
    def difference(self) -> float:
        """(parameters − reference_parameters) / reference_parameters."""
        return self.parameters / self.reference_parameters - 1

    def require(self, tolerance: float) -> None:
        """Refuse a difference larger than `tolerance`.

        Raises:
            LitPWMError: it is; the message says how to allow it.
        """
        if abs(self.difference) > tolerance:
            raise LitPWMError(
                f"The numbers of parameters should agree within {100 * tolerance:g} %, and do not: {self}. Change the "
                f"options that set the sizes, or allow the difference with parameter_tolerance: "
                f"{abs(self.difference) + 0.001:.3f}."
            )

    def to_json(self) -> ParityRecord:
        """The attributes and the difference."""
        return {
            "component": self.component,
            "width_option": self.width_option,
            "width": self.width,
            "parameters": self.parameters,
            "reference": self.reference,
            "reference_parameters": self.reference_parameters,
            "difference": self.difference,
        }

    def __str__(self) -> str:
        return (
            f"{self.component}: {self.width_option} {self.width}, {self.parameters:,} parameters; {self.reference} has "
            f"{self.reference_parameters:,}: {100 * self.difference:+.2f} %"
        )


def parity_of(component: Component, reference: Callable[..., Component], dimensions: Sequence[int]) -> Parity:
    """How a component as it is compares with a reference of the same dimensions."""
    other = _sketch(reference, dimensions)
    option = component.width_option
    width = None if option is None else component.init_args[option]
    return Parity(
        type(component).__name__, option, width, count_parameters(component), type(other).__name__,
        count_parameters(other),
    )  # fmt: skip


def match_parameters(
    make: Callable[..., C], reference: Callable[..., Component], dimensions: Sequence[int], tolerance: float = 0.02
) -> Callable[..., C]:
    """A factory of the component whose width makes its number of parameters nearest to the reference's.

    The nearest multiple of 8 is preferred if it comes within half the tolerance: GPUs multiply such matrices faster.

    The width is the class's `width_option`; where that is a sequence, its entries keep their ratios. Widths are tried
    on torch's meta device, which takes no memory and no random numbers; the constructor must not read values of its
    tensors.

    Args:
        make: a factory of the component with any width; only the ratios of a sequence matter.
        reference: a factory of what it is compared with.
        dimensions: of both.
        tolerance: largest relative difference.

    Raises:
        LitPWMError: the class names no width, or no width comes within the tolerance.
    """
    sketch = _sketch(make, dimensions)
    cls, option = type(sketch), sketch.width_option
    if option is None:
        raise LitPWMError(
            f"The number of parameters of {cls.__name__} is to be matched with a reference's, but the class does not "
            f"say which of its options is its width. Set its class attribute width_option, for example to "
            f"'hidden_dim', or leave the reference out."
        )
    target, options = count_parameters(_sketch(reference, dimensions)), sketch.init_args
    given = options[option]

    def with_width(size: int) -> Callable[..., C]:
        if isinstance(given, int):
            return _bind(cls, options | {option: size})
        largest = max(given)
        return _bind(cls, options | {option: [max(1, round(size * entry / largest)) for entry in given]})

    def parameters(size: int) -> int:
        return count_parameters(_sketch(with_width(size), dimensions))

    low, high = 1, 2
    while parameters(high) < target and high < _WIDEST:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if parameters(middle) < target else (low, middle)

    def error(size: int) -> int:
        return abs(parameters(size) - target)

    best = min((low, high), key=error)
    round_ = min((size for size in (low // _ROUND * _ROUND, low // _ROUND * _ROUND + _ROUND) if size), key=error)
    if error(round_) <= tolerance / 2 * target:
        best = round_
    parity_of(_sketch(with_width(best), dimensions), reference, dimensions).require(tolerance)
    return with_width(best)


def _bind(cls: type[C], options: dict[str, Any]) -> Callable[..., C]:
    return lambda *dimensions: cls(*dimensions, **options)


def _sketch(make: Callable[..., C], dimensions: Sequence[int]) -> C:
    """The component without storage; the global generators are left as they were."""
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        return make(*dimensions)
