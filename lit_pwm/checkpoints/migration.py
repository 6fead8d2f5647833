"""Checkpoints of older formats, brought to this one when they are read: keys, options, states of optimizers.

A format rises when keys or options move. To move something, raise `FORMAT_VERSION` and add a step; options that moved
are rows of `lit_pwm.options.moves`, which configs and Python code share.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from lit_pwm.errors import LitPWMError
from lit_pwm.models.named_classes import known_class
from lit_pwm.models.world_model import WorldModel
from lit_pwm.options import moved_flows
from lit_pwm.options.moves import OBJECTIVE, STEADIED
from lit_pwm.options.renamed import gathering_spellings, spelled_anew

DESCRIPTION_KEY = "lit_pwm"
SETTINGS_KEY = "lit_pwm_settings"
PROVENANCE_KEY = "lit_pwm_provenance"
"""Where versions and the data's fingerprint lie in a checkpoint."""
FORMAT_VERSION = 3
BEING_LOADED = "being loaded"
"""Called so in errors: what Lightning is loading, from a file whose path it does not say."""
_MODULES = {
    "world model": "lit_pwm.pretraining.WorldModelPretraining",
    "policy": "lit_pwm.policy_learning.PolicyLearning",
}
_KEYS = (
    (r"world_model\.encoder\.(\d+)\.", r"world_model.encoder.net.\1."),
    (r"target_encoder\.encoder\.(\d+)\.", r"objective.target_encoder.encoder.net.\1."),
    (r"target_encoder\.task_embedding\.", "objective.target_encoder.task_embedding."),
    (r"world_model\.reward_head\.", "world_model.heads.reward.net."),
)
"""Where weights of format 1 have moved: a pattern at the start of a key, and what takes its place."""
_GROUPS = {"policy": (("actor",), ("critic",))}
"""Kind of checkpoint → the names of its optimizers' groups, where format 1 did not name them."""
_STEADYING = {"target_encoder_rate": 1.0, "sigreg_coef": 0.0}
_told: set[str] = set()


def migrate(checkpoint: dict[str, Any], path: str | Path) -> None:
    """Bring a checkpoint of an older format to this one, in place, and say so once for each file.

    Args:
        checkpoint: as it was read, with a description that has a `kind` and a world model.
        path: where from.

    Raises:
        LitPWMError: what it holds is not what its format says.
    """
    version = checkpoint[DESCRIPTION_KEY]["format"]
    if version >= FORMAT_VERSION:
        return
    try:
        with gathering_spellings():
            for step in _STEPS[version - 1 :]:
                step(checkpoint)
    except LitPWMError:
        raise
    except Exception as error:  # a damaged file may hold anything
        raise LitPWMError(
            f"The checkpoint {str(path)!r} has format {version}, but holds something else than that format says "
            f"({type(error).__name__}: {error}). The file is damaged; use a checkpoint as a lit_pwm run wrote it."
        ) from error
    if str(path) not in (*_told, BEING_LOADED) and os.environ.get("LOCAL_RANK", "0") == "0":
        _told.add(str(path))
        print(
            f"The checkpoint {path} has format {version}, of an older lit_pwm: it was read as format {FORMAT_VERSION}.",
            file=sys.stderr,
        )


def _from_1(checkpoint: dict[str, Any]) -> None:
    """Format 2: encoder and heads are components, options are objects, groups of optimizers have names."""
    description = dict(checkpoint[DESCRIPTION_KEY])
    kind = description["kind"]
    description |= {"format": 2, "world_model": spelled_anew(WorldModel, description["world_model"])}
    options = checkpoint.get("hyper_parameters", {})
    if kind == "world model":
        description["objective"] = _objective_of_1(options)
    checkpoint[DESCRIPTION_KEY] = renewed(description)
    checkpoint["state_dict"] = {key_since_1(key): value for key, value in checkpoint["state_dict"].items()}
    # Updates of world models drew from the global generators, whose seed is the nearest that there is to one of theirs.
    seed = (checkpoint.get(SETTINGS_KEY) or {}).get("seed_everything")
    checkpoint["state_dict"].setdefault("noise_seed", torch.tensor(seed if type(seed) is int else 0))
    if options:
        checkpoint["hyper_parameters"] = renewed(_spelled_anew_where_it_can_be(_MODULES[kind], options))
    if isinstance(settings := checkpoint.get(SETTINGS_KEY), Mapping):
        checkpoint[SETTINGS_KEY] = _renewed_settings(settings, _MODULES[kind])
    for state, names in zip(checkpoint.get("optimizer_states") or (), _GROUPS.get(kind, ()), strict=False):
        for group, name in zip(state["param_groups"], names, strict=True):
            group.setdefault("name", name)


def _objective_of_1(options: Mapping[str, object]) -> dict[str, object]:
    """What the module descended on: options of its own said so, two of which are a study's class now."""
    steadying = {name: value for name, value in _STEADYING.items() if options.get(name, value) != value}
    if steadying:
        return {"class_path": STEADIED, "init_args": {name: options[name] for name in _STEADYING if name in options}}
    return {"class_path": OBJECTIVE, "init_args": {}}


def _from_2(checkpoint: dict[str, Any]) -> None:
    """Format 3: a policy's units of returns and its parity are objects of options."""
    description: dict[str, Any] = dict(checkpoint[DESCRIPTION_KEY])
    checkpoint[DESCRIPTION_KEY], owner = description | {"format": 3}, _MODULES[description["kind"]]
    if options := checkpoint.get("hyper_parameters", {}):
        checkpoint["hyper_parameters"] = _spelled_anew_where_it_can_be(owner, options)
    if isinstance(settings := checkpoint.get(SETTINGS_KEY), Mapping):
        checkpoint[SETTINGS_KEY] = _renewed_settings(settings, owner)


_STEPS: tuple[Callable[[dict[str, Any]], None], ...] = (_from_1, _from_2)
"""The step from each format to the next, from format 1 on."""


def renewed(content: Any) -> Any:
    """Plain content with the options of all components that it describes in their new spellings."""
    if isinstance(content, Mapping):
        items = {key: renewed(value) for key, value in content.items()}
        if isinstance(path := items.get("class_path"), str) and isinstance(items.get("init_args"), Mapping):
            items["init_args"] = spelled_anew(known_class(path), moved_flows.as_trained(items["init_args"]))
        return items
    if isinstance(content, (list, tuple)):
        return type(content)(renewed(value) for value in content)
    return content


def key_since_1(key: str) -> str:
    """Where the weight lies now that format 1 had under `key`."""
    for pattern, place in _KEYS:
        if match := re.match(pattern, key):
            return match.expand(place) + key[match.end() :]
    return key


def _spelled_anew_where_it_can_be(owner: str, options: Mapping[str, object]) -> dict[str, object]:
    """Options of a module in their new spellings; those that are no more stay, for whoever resumes to be told of."""
    result = dict(options)
    for name in options:
        try:
            one = spelled_anew(owner, {name: options[name]})
        except LitPWMError:
            continue
        if one != {name: options[name]}:
            del result[name]
            result = _merged(result, one)
    return result


def _merged(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    both = {
        key: _merged(first[key], second[key])
        for key in first.keys() & second.keys()
        if isinstance(first[key], Mapping) and isinstance(second[key], Mapping)
    }
    return {**first, **second, **both}


def _renewed_settings(settings: Mapping[str, Any], owner: str) -> dict[str, Any]:
    """The settings of a run, whose names leave `init_args` out, with the module's options in their new spellings."""
    model: dict[str, Any] = {}
    for name, value in settings.items():
        if name.startswith("model."):
            *above, last = name.split(".")[1:]
            place = model
            for part in above:
                place = place.setdefault(part, {})
            place[last] = value
    tree = _spelled_anew_where_it_can_be(owner, _components_renewed(model))
    rest = {name: value for name, value in settings.items() if not name.startswith("model.")}
    return rest | _flat(tree, "model")


def _components_renewed(tree: Mapping[str, object]) -> dict[str, object]:
    items = {key: _components_renewed(value) if isinstance(value, Mapping) else value for key, value in tree.items()}
    if isinstance(path := items.get("class_path"), str):
        named = spelled_anew(known_class(path), {key: value for key, value in items.items() if key != "class_path"})
        return {"class_path": path} | named
    return items


def _flat(tree: Mapping[str, object], key: str) -> dict[str, object]:
    flat: dict[str, object] = {}
    for name, value in tree.items():
        here = key if name == "init_args" else f"{key}.{name}"
        flat |= _flat(value, here) if isinstance(value, Mapping) and value else {here: value}
    return flat
