"""Swappable parts: named by a class path, described by plain values, rebuilt from that description."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, TypeVar

from torch import nn

from lit_pwm.errors import LitPWMError
from lit_pwm.imports import ignored_options, trusted_module
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

    A description names its class, and may come from anyone: only classes of lit_pwm, of modules that have been imported
    already, and of those named by `--import` are taken.

    Raises:
        LitPWMError: the description names no such subclass of `kind`, or options that the class does not have.
    """
    if not isinstance(part, Mapping):
        if not callable(part):
            raise LitPWMError(
                f"A {kind.__name__} is made by {part!r:.80}, which is neither a class or function nor a description. "
                f"Give a class that derives from {kind.__module__}.{kind.__qualname__}."
            )
        return part
    path, options = part.get("class_path"), part.get("init_args") or {}
    if not isinstance(path, str) or not isinstance(options, Mapping):
        raise LitPWMError(
            f"A checkpoint or config describes a {kind.__name__} by {str(dict(part))[:200]}, where a class_path and "
            f"its init_args are expected. The file is damaged, or not of lit_pwm."
        )
    cls = _named_class(path, kind)
    kept = known_options(cls, options, path)
    return lambda *dimensions: cls(*dimensions, **kept)


def known_options(owner: type, options: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The options that `owner` takes, of those that a checkpoint holds for it.

    Args:
        owner: the class to be built.
        options: by name.
        name: what the checkpoint calls the class.

    Raises:
        LitPWMError: others are among them, and they are not ignored (`lit_pwm.imports.ignored_options`).
    """
    parameters = inspect.signature(owner).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return dict(options)
    ignored = ignored_options()
    unknown = [option for option in options if option not in parameters and option not in ignored]
    if unknown:
        named = f"option{'s' if len(unknown) > 1 else ''} {', '.join(map(repr, unknown))}"
        raise LitPWMError(
            f"A checkpoint holds the {named} of {name}, which the class does not have: it was written by another "
            f"version of the class. Use that version; or, if the network is the same without, pass over what is "
            f"unknown with `--ignore-options {','.join(map(str, unknown))}` on the command line, or "
            f"`ignore_options={unknown!r}` in Python."
        )
    return {option: value for option, value in options.items() if option in parameters}


def _named_class(path: str, kind: type[C]) -> type[C]:
    found = trusted_module(path)
    if found is None:
        module = path.rpartition(".")[0] or "MODULE"
        raise LitPWMError(
            f"A checkpoint or config names the {kind.__name__} {path!r}, whose module is not of lit_pwm and has not "
            f"been imported, and a file is not let import modules by itself. If you trust it, add `--import {module}` "
            f"to the command line, or `import {module}` in Python before it is loaded."
        )
    value: Any = found[0]
    for name in found[1].split("."):
        # Not `getattr`, which would run a module's `__getattr__`.
        value = vars(value).get(name) if hasattr(value, "__dict__") else None
    if not isinstance(value, type):
        raise LitPWMError(
            f"A checkpoint or config names the {kind.__name__} {path!r}, but {found[0].__name__} has no class "
            f"{found[1]!r}. Use the version of the module that the checkpoint was written with."
        )
    if not issubclass(value, kind) or inspect.isabstract(value):
        raise LitPWMError(
            f"A checkpoint or config names {path!r} as {kind.__name__}, but it is no complete subclass of "
            f"{kind.__module__}.{kind.__qualname__}. Name a class that derives from it."
        )
    return value
