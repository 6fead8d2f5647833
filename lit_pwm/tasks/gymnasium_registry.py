"""Environments of gymnasium's registry by name: `gym:ID`, and `gym:MODULE:ID` for one that a module registers."""

from __future__ import annotations

import gymnasium
from gymnasium.envs.registration import EnvSpec, get_env_id, parse_env_id

from lit_pwm.errors import LitPWMError, did_you_mean
from lit_pwm.tasks.allowed_imports import require_allowed
from lit_pwm.tasks.spec import GYM_MAKE, GYM_PREFIX, TaskSpec


def spec_of_id(name: str) -> TaskSpec:
    """The spec of a task `gym:ID`, or `gym:MODULE:ID`.

    Raises:
        LitPWMError: as `registered`.
    """
    env_id = name.removeprefix(GYM_PREFIX)
    registered(env_id, f"The task {name!r}")
    return TaskSpec(name, make=GYM_MAKE, kwargs={"id": env_id})


def registered(env_id: str, about: str) -> EnvSpec:
    """The entry of gymnasium's registry, having imported the module that the id asks for if that is allowed.

    Args:
        env_id: `ID`, or `MODULE:ID`.
        about: what asks for it, as the beginning of a sentence.

    Raises:
        LitPWMError: the id is not registered or has no version, or its module may not be imported.
    """
    module, _, bare = env_id.rpartition(":")
    if module:
        require_allowed(module, about)
    known = gymnasium.registry
    try:
        namespace, env_name, version = parse_env_id(bare)
    except gymnasium.error.Error:
        namespace, env_name, version = None, "", -1
    if version is None:
        newest = max((one.version for one in known.values() if (one.namespace, one.name) == (namespace, env_name)
                      and one.version is not None), default=None)  # fmt: skip
        if newest is not None:
            found = ":".join(filter(None, (module, get_env_id(namespace, env_name, newest))))
            raise LitPWMError(
                f"{about} names an environment of gymnasium without its version, and what it is may change with the "
                f"next one. The newest is {found}: write {GYM_PREFIX}{found}."
            )
        if bare in known:
            raise LitPWMError(
                f"{about} names an environment of gymnasium without a version, which cannot be told from a later one "
                f"of the name. Register it with one, as {bare}-v0."
            )
    if bare not in known:
        raise LitPWMError(
            f"{about} names no environment of gymnasium's registry. {did_you_mean(bare, known)} An environment of "
            f"your own is registered by a module, which is named by --import MODULE, or as {GYM_PREFIX}MODULE:ID too."
        )
    return known[bare]
