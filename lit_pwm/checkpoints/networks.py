"""Comparing the networks that a checkpoint describes with those of a run."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch

from lit_pwm.checkpoints.reading import first_line
from lit_pwm.errors import LitPWMError
from lit_pwm.models.actors import Actor
from lit_pwm.models.component import factory_from
from lit_pwm.models.critics import CriticEnsemble
from lit_pwm.models.named_classes import known_class, known_options
from lit_pwm.models.world_model import WorldModel
from lit_pwm.runtime.imports import ignored_options

N = TypeVar("N", bound="Described")


class Described(Protocol):
    """Networks that describe themselves by plain values."""

    def description(self) -> dict[str, Any]:
        """Plain values from which they are rebuilt."""
        ...


def unbuilt(make: Callable[[], N]) -> N:
    """Networks without memory for their weights, made without a random number drawn, for their shapes and options."""
    with torch.random.fork_rng(devices=[]):
        try:
            with torch.device("meta"):
                return make()
        except LitPWMError:
            raise
        except Exception:  # a constructor that reads values of its tensors, which have none there
            with torch.device("cpu"):
                return make()


def description_of_unbuilt(make: Callable[[], Described]) -> dict[str, Any]:
    """How networks describe themselves, without memory for their weights and without a random number drawn."""
    return unbuilt(make).description()


def completed(description: Mapping[str, Any]) -> dict[str, Any]:
    """A checkpoint's description with all options of its networks, those too that their classes have got since.

    Raises:
        LitPWMError: it names options or classes that there are not, or that may not be loaded.
    """
    result = dict(description)
    result["world_model"] = description_of_unbuilt(lambda: WorldModel.from_description(description["world_model"]))
    model = result["world_model"]
    if "actor" in description:
        dimensions = model["latent_dim"], model["action_dim"], len(model["tasks"])
        result["actor"] = description_of_unbuilt(lambda: factory_from(description["actor"], Actor)(*dimensions))
    if "critic" in description:
        make_critic = factory_from(description["critic"], CriticEnsemble)
        result["critic"] = description_of_unbuilt(lambda: make_critic(model["latent_dim"], len(model["tasks"])))
    return result


def check_same_networks(expected: Mapping[str, Any], found: Mapping[str, Any], path: str | Path) -> None:
    """Refuse to load a checkpoint into networks of another kind or size.

    Options that are ignored (`lit_pwm.runtime.imports.ignored_options`) and that this run's class does not have do not
    count.

    Raises:
        LitPWMError: the descriptions differ; the first differences are named.
    """
    _require_known_options(expected, found)
    differences = list(_differences(expected, found))
    if differences:
        shown = "; ".join(f"{key} is {theirs!r} there and {ours!r} here" for key, ours, theirs in differences[:4])
        raise LitPWMError(
            f"The checkpoint {str(path)!r} holds networks of another kind or size than this run's config builds: "
            f"{shown}. Give the configs that the checkpoint was trained with, or start without it."
        )


def _require_known_options(ours: Any, theirs: Any) -> None:
    """Refuse options of a component that its class no longer has, as where it is rebuilt, which tells the way out."""
    if not (isinstance(ours, Mapping) and isinstance(theirs, Mapping)):
        return
    path, options = ours.get("class_path"), theirs.get("init_args") or {}
    if path is not None and path == theirs.get("class_path") and (owner := known_class(path)) is not None:
        known_options(owner, options, path)
    for name in ours:
        _require_known_options(ours[name], theirs.get(name))


def _differences(ours: Any, theirs: Any, key: str = "") -> Iterable[tuple[str, Any, Any]]:
    if isinstance(ours, Mapping) and isinstance(theirs, Mapping):
        ignored = ignored_options()
        for name in [*ours, *(name for name in theirs if name not in ours and name not in ignored)]:
            yield from _differences(ours.get(name), theirs.get(name), f"{key}.{name}" if key else name)
    elif ours != theirs:
        yield key, ours, theirs


@contextlib.contextmanager
def building(path: str | Path) -> Generator[None, None, None]:
    """Within the block, networks are built from a checkpoint's description, which may hold any values for options.

    Raises:
        LitPWMError: whatever stopped it; `--debug` shows the original.
    """
    try:
        yield
    except LitPWMError as error:
        if str(path) in str(error):
            raise
        raise LitPWMError(f"The networks in the checkpoint {str(path)!r} cannot be built: {error}") from error
    except Exception as error:
        raise LitPWMError(
            f"The networks that the checkpoint {str(path)!r} describes cannot be built "
            f"({type(error).__name__}: {first_line(error)[:200]}). The file is damaged, or a class that it names has "
            f"changed since; --debug shows where."
        ) from error
