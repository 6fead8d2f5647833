"""Tasks of stores and checkpoints, made known in this process by the specs that these files hold of them.

A file may come from anyone. What its specs name is called only if it is known to make environments, or if the user has
asked for its module; and only under the name by which it is defined there, so that a module that was imported for other
reasons, or what another module has imported in its turn, is out of reach.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from lit_pwm.errors import LitPWMError
from lit_pwm.runtime.imports import is_named
from lit_pwm.tasks.registry import is_remembered, registered_specs, remember, task_spec
from lit_pwm.tasks.spec import CUSTOM_SUITE, GYM_MAKE, GYM_PREFIX, METAWORLD, STOCK_SUITE, TaskSpec
from lit_pwm.tasks.stored_specs import StoredSpec, differences, stored_spec

_SUITES = (STOCK_SUITE, CUSTOM_SUITE, METAWORLD)
_NO_USERS = {"lit_pwm", "datamodules", "callbacks", "__main__", "__mp_main__"}
"""Beginnings of modules that any process of ours has imported, beside installed packages, which their place tells."""
_INSTALLED = {"site-packages", "dist-packages"}


def make_known(name: str, stored: StoredSpec | None, dims: tuple[int, int], file: str) -> TaskSpec:
    """The spec of a task of a file, which `task_spec` finds by its name from now on.

    A task that is registered in this process is that one, and the file must not say otherwise. Another is what the file
    says, and where it says nothing, what its name says (`gym:ID`).

    Args:
        name: the task's.
        stored: what the file says of its environment.
        dims: widths of its observations and actions, as the file has them.
        file: what it is called in errors, such as `the checkpoint 'last.ckpt'`.

    Raises:
        LitPWMError: the file contradicts a registered task, asks for a module that it is not let ask for, or its spec
            is none.
    """
    known = name in registered_specs() or is_remembered(name)
    if not known and stored and says_enough(stored):
        remember(_spec_of(name, stored, dims, file))
        return task_spec(name)
    found = task_spec(name)
    if stored and (differing := differences(ours := stored_spec(found), stored)):
        there, here = ({key: one[key] for key in differing} for one in (stored, ours))
        raise LitPWMError(
            f"The task {name!r} is {there} in {file} and {here} as it is known in this process, because it is "
            f"registered or another file says so: two environments of one name. Register the one that the file is of, "
            f"or use the files in a process each."
        )
    return found


def says_enough(stored: StoredSpec | None) -> bool:
    """Whether a stored spec says how an environment is made."""
    return bool(stored) and ("make" in stored or "domain" in stored)


def _spec_of(name: str, stored: StoredSpec, dims: tuple[int, int], file: str) -> TaskSpec:
    about = f"The task {name!r} of {file}"
    fields = {
        key: stored[key]
        for key in ("episode_length", "action_repeat", "low", "high", "score_range")
        if stored.get(key) is not None
    }
    kwargs = stored.get("kwargs", {})
    try:
        if not isinstance(kwargs, Mapping):
            raise ValueError(f"its kwargs are {kwargs!r:.80}")
        for key in ("low", "high", "score_range"):
            if key in fields:
                fields[key] = tuple(float(number) for number in fields[key])
        if "make" in stored:
            _require_maker(stored["make"], kwargs, about)
            return TaskSpec(
                name, obs_dim=dims[0], action_dim=dims[1], make=stored["make"], kwargs=dict(kwargs), **fields
            )
        _require_suite(stored.get("suite"), stored["domain"], about)
        return TaskSpec(
            name, stored["domain"], str(stored.get("task")), *dims, suite=str(stored["suite"]), **fields
        )  # fmt: skip
    except (TypeError, ValueError, LitPWMError) as error:
        if about in str(error):
            raise
        raise LitPWMError(f"{about} has a spec that is none: {str(error).rstrip('.')}. The file is damaged.") from error


# -- what a file may name ---------------------------------------------------------------------------------------------
def _require_maker(make: object, kwargs: Mapping[str, Any], about: str) -> None:
    """Make sure that a file may name a function, whose module is imported for it if the user has named it."""
    if not isinstance(make, str) or not all(_names(part) for part in make.split(":")) or make.count(":") != 1:
        raise LitPWMError(
            f"{about} should be made by {make!r:.200}, and a function is named as 'package.module:function'. The file "
            f"is damaged, or was made to mislead."
        )
    if make == GYM_MAKE:
        _require_id(kwargs.get("id"), about)
        return
    if any(spec.make == make for spec in registered_specs().values()):
        return
    module_name, _, path = make.partition(":")
    module = _required_module(module_name, f"{about} is made by {make}")
    if not _is_defined_in(module, path):
        raise LitPWMError(
            f"{about} is made by {make}, and the module {module_name!r} defines no function {path!r}: what it has "
            f"imported from elsewhere is not called because a file says so, whether --import {module_name} names it or "
            f"not. Register the task in Python, lit_pwm.tasks.register(TaskSpec(...)), if you trust it."
        )


def _require_id(env_id: object, about: str) -> None:
    if not isinstance(env_id, str):
        raise LitPWMError(f"{about} names no id of gymnasium's but {env_id!r:.80}. The file is damaged.")
    if module := env_id.rpartition(":")[0]:
        if not _names(module):
            raise LitPWMError(f"{about} is {GYM_PREFIX}{env_id:.200}, which is no id of gymnasium's.")
        _required_module(module, f"{about} is {GYM_PREFIX}{env_id}")


def _require_suite(suite: object, domain: object, about: str) -> None:
    if not (isinstance(suite, str) and isinstance(domain, str) and _names(suite) and domain.isidentifier()):
        raise LitPWMError(
            f"{about} should lie in the module {f'{suite}.{domain}'!r:.200}, which is the name of none. The file is "
            f"damaged, or was made to mislead."
        )
    module = f"{suite}.{domain}"
    if suite not in _SUITES and all(spec.module != module for spec in registered_specs().values()):
        _required_module(module, f"{about} lies in {module}")


def _names(path: str) -> bool:
    return all(part.isidentifier() for part in path.split("."))


def _required_module(name: str, about: str) -> ModuleType:
    """The module of a name, where the user has asked for it: by `--import`, or because code of theirs is imported."""
    if name.partition(".")[0] in sys.stdlib_module_names:
        raise LitPWMError(
            f"{about}, and {name!r} is a module of Python's own, which makes no environments: no file is let call it, "
            f"neither because it is imported already nor by --import {name}. The file was made to mislead."
        )
    asked_for = is_named(name)  # first: it is imported then
    module = sys.modules.get(name)
    if isinstance(module, ModuleType) and (asked_for or _is_users(name, module)):
        return module
    raise LitPWMError(
        f"{about}, and the module {name!r} is not imported because a file says so: that runs its code. If you trust "
        f"it, give --import {name} on the command line, or register the task in Python before "
        f"(lit_pwm.tasks.register)."
    )


def _is_users(name: str, module: ModuleType) -> bool:
    """Whether an imported module is the user's own code: neither Python's nor an installed package's nor ours."""
    place = getattr(module, "__file__", None)
    if name.partition(".")[0] in _NO_USERS or not isinstance(place, str):
        return False
    return not _INSTALLED & set(Path(place).resolve().parts)


def _is_defined_in(module: ModuleType, path: str) -> bool:
    """Whether a function or class of this name is defined in a module, or in another one of the same package."""
    found: Any = module
    for part in path.split("."):
        if found is not module and not isinstance(found, type):
            return False
        found = vars(found).get(part)  # not `getattr`, which would run a module's `__getattr__`
    found = found.__func__ if isinstance(found, (classmethod, staticmethod)) else found
    home = getattr(found, "__module__", None)
    package = module.__name__.partition(".")[0]
    return (
        callable(found)
        and getattr(found, "__qualname__", None) == path
        and isinstance(home, str)
        and home.partition(".")[0] == package
    )
