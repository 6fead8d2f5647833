"""What stores and checkpoints hold of a task: its spec as plain JSON, and the versions of the simulators it ran in.

Nothing is imported here, neither a simulator nor what a spec names.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from lit_pwm.provenance import versions
from lit_pwm.tasks.registry import registered_specs
from lit_pwm.tasks.spec import CUSTOM_SUITE, STOCK_SUITE, WHOLE_OBSERVATION, TaskSpec

_SIMULATORS = ("mujoco", "dm_control", "gymnasium")
_VERSIONS = "versions"
"""The key of the simulators' versions, which may differ between two files of one environment."""
_DM_CONTROL, _MADE = ("suite", "domain", "task"), ("make", "kwargs")
_RANGES = ("low", "high", "score_range")
_ANY = ("action_repeat", "episode_length", *_RANGES)
StoredSpec = Mapping[str, Any]
"""A spec as JSON has it, with what is known: `suite`, `domain` and `task` of dm_control, or `make` and `kwargs`;
`action_repeat`, `episode_length`, bounds `low` and `high`, `score_range`, `obs_order`, `versions`."""


def stored_spec(spec: TaskSpec, ran_here: bool = True) -> dict[str, Any]:
    """A spec as JSON can hold it, keys in a fixed order.

    Args:
        spec: the task's.
        ran_here: whether the episodes come from this process's simulators, whose versions are then part of it.
    """
    found: dict[str, Any] = {}
    for name in (*(_MADE if spec.make else _DM_CONTROL), *_ANY):
        value = getattr(spec, name)
        if value or name == "kwargs":
            found[name] = list(value) if isinstance(value, tuple) else value
    if not spec.make and spec.suite in (STOCK_SUITE, CUSTOM_SUITE):
        found |= {"low": [-1.0] * spec.action_dim, "high": [1.0] * spec.action_dim}
    if spec.obs_keys and (order := [name for name, _ in spec.obs_keys]) != [WHOLE_OBSERVATION]:
        found["obs_order"] = order
    if ran_here:
        known = versions()
        found[_VERSIONS] = {name: known[name] for name in _SIMULATORS}
    return found


def in_words(spec: StoredSpec) -> str:
    """What a stored spec says, in a line; its texts are those of a file. Empty where it says nothing."""
    said = []
    if "make" in spec:
        kwargs = spec.get("kwargs")
        arguments = kwargs.items() if isinstance(kwargs, Mapping) else ()
        said.append(f"{spec['make']}({', '.join(f'{name}={value!r}' for name, value in arguments)})")
    elif "domain" in spec:
        said.append(f"{spec.get('task')} of {spec.get('suite')}.{spec['domain']}")
    for name, words in (("action_repeat", "action repeat {}"), ("episode_length", "at most {} steps")):
        if name in spec:
            said.append(words.format(spec[name]))
    low, high, scores = (value if isinstance(value := spec.get(name), list) else [] for name in _RANGES)
    if low and high:
        said.append(f"actions from {_same(low)} to {_same(high)}")
    if len(scores) == 2:
        said.append("scores from {} to {}".format(*scores))
    ran = spec.get(_VERSIONS)
    if isinstance(ran, Mapping) and ran:
        said.append(f"run by {', '.join(f'{name} {version}' for name, version in ran.items())}")
    return ", ".join(said)


def _same(numbers: list[Any]) -> Any:
    """The one that all are, if they are."""
    return numbers[0] if all(number == numbers[0] for number in numbers) else numbers


def registered_spec(name: str, obs_dim: int, action_dim: int) -> TaskSpec | None:
    """The spec of a task that is registered in this process with these widths, or with none yet; else None."""
    spec = registered_specs().get(name)
    agrees = spec is not None and spec.obs_dim in (0, obs_dim) and spec.action_dim in (0, action_dim)
    return spec if agrees else None


def differences(one: StoredSpec, other: StoredSpec) -> list[str]:
    """The keys in which two say different things of one environment; what only one says is no difference."""
    return [key for key in one if key in other and key != _VERSIONS and not _alike(one[key], other[key])]


def _alike(one: object, other: object) -> bool:
    """Whether values are the same, numbers up to single precision, in which some files have them."""
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_alike, one, other))
    if isinstance(one, float) and isinstance(other, (int, float)):
        return math.isclose(one, other, rel_tol=1e-6)
    return one == other


def merged(specs: Iterable[StoredSpec]) -> dict[str, Any]:
    """What specs that do not differ say together; where versions of simulators do, all of them, one after another."""
    found: dict[str, Any] = {}
    for spec in specs:
        ran = dict(found.get(_VERSIONS, {}))
        for name, version in (spec.get(_VERSIONS) or {}).items():
            known = ran.get(name, "").split(", ") if name in ran else []
            ran[name] = ", ".join(dict.fromkeys([*known, *str(version).split(", ")]))
        found = {**spec, **found} | ({_VERSIONS: ran} if ran else {})
    return dict(sorted(found.items()))
