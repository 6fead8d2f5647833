"""Swappable parts: named by a class path, described by plain values, rebuilt from that description."""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, TypeVar

from torch import nn

from lit_pwm.errors import LitPWMError
from lit_pwm.options import checked

C = TypeVar("C", bound="Component")


class Component(nn.Module, ABC):
    """A part that a config swaps by `class_path`.

    Its constructor takes the dimensions first (they come from the data or the checkpoint) and then its own options.
    Ranges in the options' type hints (`lit_pwm.options`, such as `width: Count = 256`) are checked when it is called.

    Attributes:
        width_option: the option that sets the width of the hidden layers, a number or a sequence of numbers; None where
            there is none. Comparisons at equal parameters scale it (`lit_pwm.models.parity`).
    """

    width_option: ClassVar[str | None] = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "__init__" in cls.__dict__:
            cls.__init__ = checked(cls.__init__)

    @property
    @abstractmethod
    def init_args(self) -> dict[str, Any]:
        """The constructor's options without the leading dimensions, as plain values."""

    def description(self) -> dict[str, Any]:
        """Plain values from which `factory_from` rebuilds this part; what a checkpoint holds."""
        cls = type(self)
        return {"class_path": f"{cls.__module__}.{cls.__qualname__}", "init_args": dict(self.init_args)}


def factory_from(part: Callable[..., C] | Mapping[str, Any], kind: type[C]) -> Callable[..., C]:
    """A factory of `kind`, from a callable or from the description that a checkpoint holds.

    Raises:
        LitPWMError: the description names no importable subclass of `kind`.
    """
    if not isinstance(part, Mapping):
        return part
    path, options = part["class_path"], dict(part.get("init_args") or {})
    module_name, _, class_name = path.rpartition(".")
    try:
        cls = getattr(importlib.import_module(module_name), class_name)
    except (ImportError, AttributeError, ValueError) as error:
        raise LitPWMError(
            f"A checkpoint or config names the {kind.__name__} {path!r}, which cannot be imported ({error}). "
            f"Make the module that defines it importable (install it, or put its folder on PYTHONPATH) and run again."
        ) from error
    if not (isinstance(cls, type) and issubclass(cls, kind)):
        raise LitPWMError(
            f"A checkpoint or config names {path!r} as {kind.__name__}, but it is not a subclass of "
            f"{kind.__module__}.{kind.__qualname__}. Name a class that derives from it."
        )
    return lambda *dimensions: cls(*dimensions, **options)
