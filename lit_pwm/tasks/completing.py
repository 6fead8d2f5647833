"""What a spec leaves to be read from its environment: widths, bounds of actions, time limit."""

from __future__ import annotations

import functools
import math
from dataclasses import replace
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Space, Tuple

from lit_pwm.errors import LitPWMError
from lit_pwm.tasks.flat_space import space_parts
from lit_pwm.tasks.foreign_code import close_foreign
from lit_pwm.tasks.gymnasium_loading import load_gymnasium
from lit_pwm.tasks.spec import WHOLE_OBSERVATION, TaskSpec


@functools.cache
def completed(spec: TaskSpec) -> TaskSpec:
    """A spec with everything that it leaves to be read from its environment, which is built once in a process.

    Raises:
        LitPWMError: as `lit_pwm.tasks.gymnasium_loading.load_gymnasium` and `read_from`.
    """
    if not spec.make or (spec.obs_dim and spec.action_dim and spec.episode_length and spec.low and spec.high):
        return spec
    env = load_gymnasium(spec)
    try:
        return read_from(env, spec)
    finally:
        close_foreign(env, spec.name)


def read_from(env: gymnasium.Env[Any, Any], spec: TaskSpec) -> TaskSpec:
    """A spec with what its environment says.

    Args:
        env: as the spec's function made it.
        spec: whatever it says must agree with the environment.

    Raises:
        LitPWMError: the environment is of a kind that is not supported, the reason is said; or the spec says otherwise.
    """
    keys = _observations(_space(env, "observation_space", spec), spec)
    low, high = _bounds(_space(env, "action_space", spec), spec)
    obs_dim = sum(width for _, width in keys)
    for name, said, found in (("obs_dim", spec.obs_dim, obs_dim), ("action_dim", spec.action_dim, len(low))):
        if said not in (0, found):
            raise _contradiction(spec, name, said, found)
    for name, said, found in (("low", spec.low, low), ("high", spec.high, high)):
        if said and (len(said) != len(found) or not np.allclose(said, found, rtol=1e-6, atol=1e-12)):
            raise _contradiction(spec, name, said, found)
    return replace(
        spec, obs_dim=obs_dim, action_dim=len(low), obs_keys=keys, low=low, high=high,
        episode_length=_episode_length(env, spec),
    )  # fmt: skip


def _space(env: gymnasium.Env[Any, Any], name: str, spec: TaskSpec) -> Space[Any]:
    space = getattr(env, name, None)
    if not isinstance(space, Space):
        raise LitPWMError(
            f"The environment of {spec.name!r} has as its {name} {space!r:.80} ({type(space).__module__}."
            f"{type(space).__name__}). Give it a space of gymnasium.spaces."
        )
    return space


def _observations(space: Space[Any], spec: TaskSpec) -> tuple[tuple[str, int], ...]:
    """Names and widths of the parts of an observation, in the order in which they are flattened."""
    what = f"observation_space of {spec.name!r}"
    parts = space_parts(described(space), what)
    if sum(part.width for part in parts) == 0:
        raise LitPWMError(f"The {what}, {space}, holds no numbers, so that there is nothing to act by.")
    return tuple((part.name or WHOLE_OBSERVATION, part.width) for part in parts)


def described(space: Space[Any]) -> dict[str, Any]:
    """A space in plain values, as Minari writes them."""
    kind = type(space).__name__
    match space:
        case Dict():
            return {"type": "Dict", "subspaces": {key: described(one) for key, one in space.spaces.items()}}
        case Tuple():
            return {"type": "Tuple", "subspaces": [described(one) for one in space.spaces]}
        case Box():
            return {"type": "Box", "shape": list(space.shape), "dtype": str(space.dtype)}
        case MultiBinary():
            return {"type": "MultiBinary", "n": list(space.shape)}
        case Discrete():
            return {"type": "Discrete", "n": int(space.n), "start": int(space.start)}
        case MultiDiscrete():
            return {"type": "MultiDiscrete", "nvec": space.nvec.tolist(), "start": space.start.tolist()}
    return {"type": kind}


def _bounds(space: Space[Any], spec: TaskSpec) -> tuple[tuple[float, ...], tuple[float, ...]]:
    what = f"The action_space of {spec.name!r} is {' '.join(str(space).split())}"
    if not isinstance(space, Box) or not np.issubdtype(space.dtype, np.floating):
        raise LitPWMError(
            f"{what}, and policies give vectors of real numbers. Supported is a Box of floats with finite bounds; "
            f"choices, whole numbers, dictionaries and tuples of actions are not."
        )
    low, high = (np.asarray(bound, np.float64).reshape(-1) for bound in (space.low, space.high))
    unbounded = np.flatnonzero(~(np.isfinite(low) & np.isfinite(high)))
    # A dtype's largest numbers are how an absent bound is written as well; half of their range is not finite.
    unbounded = unbounded if unbounded.size else np.flatnonzero(~(high - low < np.finfo(space.dtype).max))
    if unbounded.size:
        raise LitPWMError(
            f"{what}, whose entries {unbounded[:8].tolist()} have no bounds, so that actions in [-1, 1] mean nothing "
            f"to it. Give the environment finite bounds of its actions."
        )
    if not low.size or (low >= high).any():
        raise LitPWMError(f"{what}, and an action needs entries that each have a range. Give it such bounds.")
    return tuple(low.tolist()), tuple(high.tolist())


def _episode_length(env: gymnasium.Env[Any, Any], spec: TaskSpec) -> int:
    """Agent steps in an episode: the spec's, or the environment's own time limit."""
    limit = _time_limit(env)
    if limit is None:
        if not spec.episode_length:
            raise LitPWMError(
                f"The environment of {spec.name!r} has no time limit, so that an episode need not end. Give its "
                f"TaskSpec an episode_length, "
                f"lit_pwm.tasks.register(TaskSpec({spec.name!r}, make={spec.make!r}, "
                f"kwargs={dict(spec.kwargs)}, episode_length=1000)), or the environment a "
                f"max_episode_steps where it is registered."
            )
        return spec.episode_length
    own = math.ceil(limit / spec.action_repeat)
    if spec.episode_length > own:
        raise LitPWMError(
            f"The TaskSpec of {spec.name!r} says episode_length={spec.episode_length}, but its environment ends "
            f"episodes after {own} steps{f', each {spec.action_repeat} of its own' if spec.action_repeat > 1 else ''}. "
            f"Give at most that, or leave it out."
        )
    return spec.episode_length or own


def _time_limit(env: gymnasium.Env[Any, Any]) -> int | None:
    """Steps after which the environment truncates an episode, if it says so."""
    limits = []
    while True:
        if isinstance(env, gymnasium.wrappers.TimeLimit):
            limits.append(env._max_episode_steps)
        if not isinstance(env, gymnasium.Wrapper):
            break
        env = env.env
    if env.spec is not None and env.spec.max_episode_steps is not None:
        limits.append(env.spec.max_episode_steps)
    return min(limits, default=None)


def _contradiction(spec: TaskSpec, name: str, said: object, found: object) -> LitPWMError:
    return LitPWMError(
        f"The TaskSpec of {spec.name!r} says {name}={said}, but its environment has {found}. Leave {name} out, or give "
        f"the environment's own."
    )
