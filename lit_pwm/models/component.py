"""Swappable parts: named by a class path, described by plain values, rebuilt from that description."""

from __future__ import annotations

import functools
import inspect
from abc import ABC
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from numbers import Integral, Real
from typing import Any, ClassVar, TypeVar, cast

from torch import nn

from lit_pwm.errors import LitPWMError
from lit_pwm.models.named_classes import known_options, named_class
from lit_pwm.options import checked
from lit_pwm.options.renamed import accepting_old_spellings, spelled_anew

C = TypeVar("C")
F = TypeVar("F", bound=Callable[..., Any])


class Component(nn.Module, ABC):
    """A part that a config swaps by `class_path`.

    Its constructor takes the dimensions first (they come from the data or the checkpoint) and then its own options,
    which are remembered as it is called: nobody writes down again what a checkpoint saves. Ranges in the options' type
    hints (`lit_pwm.options`, such as `width: Count = 256`) are checked.

    Options are plain values, or parts in their turn: a component or a dataclass, given as itself, by a factory, or by
    its description, and kept as the attribute of the option's name (`made`).

    Attributes:
        dimensions: names of the constructor's leading parameters that are no options; each kind of component sets it.
        width_option: the option that sets the width of the hidden layers, a number or a sequence of numbers; None where
            there is none. Comparisons at equal parameters scale it (`lit_pwm.models.parity`).
    """

    dimensions: ClassVar[tuple[str, ...]] = ()
    width_option: ClassVar[str | None] = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "__init__" in cls.__dict__:
            constructor = accepting_old_spellings(_remembering(checked(cls.__init__)), cls)
            cls.__init__ = cast("Any", constructor)

    @property
    def init_args(self) -> dict[str, Any]:
        """The constructor's options, those left at their defaults included, as plain values.

        Raises:
            LitPWMError: an option was given a value that is not plain, and the component does not keep it as a part.
        """
        found = {}
        for name, value in self.__dict__.get(_OPTIONS, {}).items():
            is_part = isinstance(value, str) and value == _PART
            found[name] = described(getattr(self, name)) if is_part else plain_value(value)
            if found[name] is _NOT_PLAIN:
                raise LitPWMError(
                    f"{type(self).__name__} was given {name} {value!r:.80}, which a checkpoint cannot hold. Options "
                    f"are numbers, texts, lists and mappings of them; a part of its own, a component or a dataclass, "
                    f"is kept as the attribute {name!r}. Or write the property init_args, with plain values."
                )
        return found

    def description(self) -> dict[str, Any]:
        """Plain values from which `factory_from` rebuilds this part; what a checkpoint holds."""
        cls = type(self)
        return {"class_path": f"{cls.__module__}.{cls.__qualname__}", "init_args": dict(self.init_args)}


_OPTIONS, _OPEN = "_options_given", "_options_open"
_PART, _NOT_PLAIN = "a part that is kept as the attribute of this name", object()


def _remembering(constructor: F) -> F:
    """A constructor that remembers its options in the object: the outermost of a chain of them.

    Of the inner ones, those to which an outer one hands `**options` add the defaults that were left.
    """
    signature = inspect.signature(constructor)

    @functools.wraps(constructor)
    def remembering(self: Component, *args: Any, **kwargs: Any) -> None:
        own, outermost = self.__dict__, _OPTIONS not in self.__dict__
        try:
            bound = signature.bind(self, *args, **kwargs)
        except TypeError:
            return constructor(self, *args, **kwargs)  # which says what is missing or unknown
        explicit = {} if outermost else dict(bound.arguments)
        bound.apply_defaults()
        options = own.setdefault(_OPTIONS, {})
        if outermost or own.pop(_OPEN, False):
            for number, (name, parameter) in enumerate(list(signature.parameters.items())[1:]):
                if parameter.kind is parameter.VAR_KEYWORD:
                    options.update(bound.arguments[name] if outermost else {})
                    own[_OPEN] = True
                elif not (
                    parameter.kind is parameter.VAR_POSITIONAL
                    or name in self.dimensions
                    # A dimension under a name of the user's own.
                    or (outermost and number < len(self.dimensions) and parameter.default is parameter.empty)
                    or name in explicit
                ):
                    options.setdefault(name, bound.arguments[name])
        constructor(self, *args, **kwargs)
        if outermost:
            own.pop(_OPEN, None)
            for name, value in options.items():
                kept, plain = getattr(self, name, None), plain_value(value)
                if plain is _NOT_PLAIN or (isinstance(value, Mapping) and "class_path" in value):
                    is_part = isinstance(kept, Component) or (is_dataclass(kept) and not isinstance(kept, type))
                    options[name] = _PART if is_part else value
                else:
                    options[name] = plain
        return None

    return cast("F", remembering)


def described(part: Any) -> dict[str, Any]:
    """The description of a component, or of a dataclass: its class and its options."""
    if isinstance(part, Component):
        return part.description()
    values = {field.name: getattr(part, field.name) for field in fields(part) if field.init}
    plain = {name: described(value) if is_dataclass(value) else plain_value(value) for name, value in values.items()}
    return {"class_path": f"{type(part).__module__}.{type(part).__qualname__}", "init_args": plain}


def plain_value(value: Any) -> Any:
    """The value as numbers, texts, lists and mappings of them, if that is what it is."""
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        return float(value)
    if isinstance(value, (list, tuple)):
        entries = [plain_value(entry) for entry in value]
        return _NOT_PLAIN if any(entry is _NOT_PLAIN for entry in entries) else entries
    if isinstance(value, Mapping):
        table = {str(key): plain_value(entry) for key, entry in value.items()}
        return _NOT_PLAIN if any(entry is _NOT_PLAIN for entry in table.values()) else table
    return _NOT_PLAIN


def made(part: Any, kind: type[C], *dimensions: Any, option: str = "", owner: str = "") -> C:
    """A part: itself, what a factory makes of the dimensions, or what a description says.

    Args:
        part: one of these.
        kind: the class it must be of.
        dimensions: of the part.
        option: name of the option that it was given for.
        owner: the class that has the option.

    Raises:
        LitPWMError: it is none of these, or something else is made.
    """
    found = part
    if isinstance(part, Mapping) or _is_factory(part, kind):
        found = factory_from(part, kind)(*dimensions)
    if isinstance(found, kind):
        return found
    given = f"{owner or 'A component'} has {option or kind.__name__.lower()} {part!r:.80}"
    raise LitPWMError(
        f"{given}, where a {kind.__name__} is expected. In a config, give class_path and init_args; in Python, an "
        f"object, or a class of {kind.__module__} with functools.partial for its options."
    )


def _is_factory(part: Any, kind: type) -> bool:
    if isinstance(part, type):
        return issubclass(part, kind)
    return callable(part) and not is_dataclass(part) and not isinstance(part, nn.Module)


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
    cls = named_class(path, kind)
    kept = known_options(cls, spelled_anew(cls, options), path)
    return lambda *dimensions: cls(*dimensions, **kept)
