"""The shapes of TD-MPC2's policy prior and Q functions, which lit_pwm carries and does not use."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lit_pwm.checkpoints.formats.key_check import shape_of
from lit_pwm.checkpoints.formats.sizes_in_tensors import HIDDEN_LAYERS, Sizes

_LAYER = ("weight", "bias", "ln.weight", "ln.bias")
Shapes = dict[str, tuple[int, ...]]


def prior_shapes(sizes: Sizes) -> Shapes:
    """Of `_pi`: an MLP of latent and task to mean and log deviation of each action entry."""
    inputs, hidden, outputs = (sizes.latent_dim or 0) + (sizes.task_dim or 0), sizes.dynamics_dim or 0, 2
    return _mlp("_pi.", inputs, hidden, outputs * (sizes.action_dim or 0))


def ensemble_shapes(carried: Mapping[str, Any], prefix: str, sizes: Sizes) -> Shapes:
    """Of stacked Q functions whose tensors are numbered: weight, bias, ln.weight, ln.bias of each layer in turn."""
    named = stacked_shapes(carried, prefix, f"{prefix}0", sizes)
    return {f"{prefix}{number}": shape for number, shape in enumerate(named.values())}


def stacked_shapes(carried: Mapping[str, Any], prefix: str, first: str, sizes: Sizes) -> Shapes:
    """Of stacked Q functions: MLPs of latent, task and action to the bins of their value.

    Args:
        carried: what the file holds.
        prefix: what their keys begin with.
        first: the key of the first layer's weight, which says how many there are.
        sizes: of the world model.
    """
    inputs = (sizes.latent_dim or 0) + (sizes.task_dim or 0) + (sizes.action_dim or 0)
    stacked = shape_of(carried.get(first)) or (0,)
    single = _mlp(prefix, inputs, sizes.dynamics_dim or 0, sizes.bins or 0)
    return {key: (*stacked[:1], *shape) for key, shape in single.items()}


def _mlp(prefix: str, inputs: int, hidden: int, outputs: int) -> Shapes:
    shapes: Shapes = {}
    for number in range(HIDDEN_LAYERS):
        columns = inputs if number == 0 else hidden
        for name in _LAYER:
            shapes[f"{prefix}{number}.{name}"] = (hidden, columns) if name == "weight" else (hidden,)
    last = f"{prefix}{HIDDEN_LAYERS}"
    return shapes | {f"{last}.weight": (outputs, hidden), f"{last}.bias": (outputs,)}


_PLACES = {"_Qs.params": ("_Qs.params", "_detach_Qs_params"), "_target_Qs.params": ("_target_Qs_params",)}
"""Where Q functions of TD-MPC2's original files lie in its current ones."""


def numbered_to_named(carried: Mapping[str, Any]) -> dict[str, Any]:
    """What an original file of TD-MPC2's carries, by the keys of its current ones, as its own converter does."""
    found = {key: value for key, value in carried.items() if key.startswith("_pi.")}
    for old, places in _PLACES.items():
        numbered = {int(key.rpartition(".")[2]): value for key, value in carried.items() if key.startswith(f"{old}.")}
        for place in places if numbered else ():
            for number, value in sorted(numbered.items()):
                found[f"{place}.{number // len(_LAYER)}.{_LAYER[number % len(_LAYER)]}"] = value
            found |= {f"{place}.__batch_size": numbered[0].shape[:1], f"{place}.__device": None}
    return found


def named_to_numbered(carried: Mapping[str, Any]) -> dict[str, Any]:
    """The way back of `numbered_to_named`; what original files do not have is left out."""
    found = {key: value for key, value in carried.items() if key.startswith("_pi.")}
    for old, (place, *_) in _PLACES.items():
        for key, value in carried.items():
            layer, _, kind = key.removeprefix(f"{place}.").partition(".")
            if key.startswith(f"{place}.") and layer.isdecimal() and kind in _LAYER:
                found[f"{old}.{int(layer) * len(_LAYER) + _LAYER.index(kind)}"] = value
    return found
