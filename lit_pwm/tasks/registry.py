"""The tasks that lit_pwm knows: their names, their order in each task set, their dimensions.

Imports no simulator, so that commands can check task names before anything slow is loaded. Names, index order and
dimensions are those of TD-MPC2 (arXiv 2310.16828).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np

from lit_pwm.errors import LitPWMError, did_you_mean
from lit_pwm.tasks.allowed_imports import allow
from lit_pwm.tasks.spec import CUSTOM_SUITE, DM_CONTROL_SCORES, GYM_PREFIX, METAWORLD, STOCK_SUITE, TaskSpec

# Domain → (parts of the observation in order, action width). Finger's turning tasks see two parts more.
_LAYOUTS: dict[str, tuple[dict[str, int], int]] = {
    "walker": ({"orientations": 14, "height": 1, "velocity": 9}, 6),
    "cheetah": ({"position": 8, "velocity": 9}, 6),
    "reacher": ({"position": 2, "to_target": 2, "velocity": 2}, 2),
    "acrobot": ({"orientations": 4, "velocity": 2}, 1),
    "pendulum": ({"orientation": 2, "velocity": 1}, 1),
    "cartpole": ({"position": 3, "velocity": 2}, 1),
    "ball_in_cup": ({"position": 4, "velocity": 4}, 2),
    "finger": ({"position": 4, "velocity": 3, "touch": 2}, 2),
    "fish": ({"joint_angles": 7, "upright": 1, "target": 3, "velocity": 13}, 5),
    "hopper": ({"position": 6, "velocity": 7, "touch": 2}, 4),
}
_FINGER_TURN: tuple[dict[str, int], int] = (
    {"position": 4, "velocity": 3, "touch": 2, "target_position": 2, "dist_to_target": 1},
    2,
)
_REACHER_THREE: tuple[dict[str, int], int] = ({"position": 3, "to_target": 2, "velocity": 3}, 3)

# TD-MPC2's index order: task i of a checkpoint's embedding is entry i of these tuples.
_STOCK = (
    "walker-stand", "walker-walk", "walker-run", "cheetah-run", "reacher-easy", "reacher-hard", "acrobot-swingup",
    "pendulum-swingup", "cartpole-balance", "cartpole-balance-sparse", "cartpole-swingup", "cartpole-swingup-sparse",
    "cup-catch", "finger-spin", "finger-turn-easy", "finger-turn-hard", "fish-swim", "hopper-stand", "hopper-hop",
)  # fmt: skip
_CUSTOM = (
    "walker-walk-backwards", "walker-run-backwards", "cheetah-run-backwards", "cheetah-run-front", "cheetah-run-back",
    "cheetah-jump", "hopper-hop-backwards", "reacher-three-easy", "reacher-three-hard", "cup-spin", "pendulum-spin",
)  # fmt: skip
# dm_control's tasks with randomness in their dynamics; no part of TD-MPC2's sets.
_STOCHASTIC = ("cartpole-swingup-kicked", "cartpole-balance-kicked")
# dm_control's tasks with a failure that ends the episode; no part of TD-MPC2's sets.
_FAILING = ("cartpole-dash", "cartpole-keep-up")
_METAWORLD = (
    "mw-assembly", "mw-basketball", "mw-button-press-topdown", "mw-button-press-topdown-wall", "mw-button-press",
    "mw-button-press-wall", "mw-coffee-button", "mw-coffee-pull", "mw-coffee-push", "mw-dial-turn", "mw-disassemble",
    "mw-door-open", "mw-door-close", "mw-drawer-close", "mw-drawer-open", "mw-faucet-open", "mw-faucet-close",
    "mw-hammer", "mw-handle-press-side", "mw-handle-press", "mw-handle-pull-side", "mw-handle-pull", "mw-lever-pull",
    "mw-peg-insert-side", "mw-peg-unplug-side", "mw-pick-out-of-hole", "mw-pick-place", "mw-pick-place-wall",
    "mw-plate-slide", "mw-plate-slide-side", "mw-plate-slide-back", "mw-plate-slide-back-side", "mw-push-back",
    "mw-push", "mw-push-wall", "mw-reach", "mw-reach-wall", "mw-shelf-place", "mw-soccer", "mw-stick-push",
    "mw-stick-pull", "mw-sweep-into", "mw-sweep", "mw-window-open", "mw-window-close", "mw-bin-picking",
    "mw-box-close", "mw-door-lock", "mw-door-unlock", "mw-hand-insert",
)  # fmt: skip

TASK_SETS: dict[str, tuple[str, ...]] = {
    "mt30": (*_STOCK, *_CUSTOM),
    "mt80": (*_STOCK, *_CUSTOM, *_METAWORLD),
    "demo": ("cartpole-swingup", "cup-catch", "cartpole-balance", "reacher-easy"),
    "stochastic": _STOCHASTIC,
    "failing": _FAILING,
}


def _dm_control_spec(name: str, suite: str) -> TaskSpec:
    domain, task = name.replace("-", "_").split("_", 1)
    domain = {"cup": "ball_in_cup"}.get(domain, domain)
    parts, action_dim = _LAYOUTS[domain]
    if domain == "finger" and task.startswith("turn"):
        parts, action_dim = _FINGER_TURN
    elif domain == "reacher" and task.startswith("three"):
        parts, action_dim = _REACHER_THREE
    return TaskSpec(name, domain, task, sum(parts.values()), action_dim, tuple(parts.items()), suite=suite)


_SPECS: dict[str, TaskSpec] = {
    **{name: _dm_control_spec(name, STOCK_SUITE) for name in _STOCK},
    **{name: _dm_control_spec(name, CUSTOM_SUITE) for name in _CUSTOM},
    **{
        name: TaskSpec(name, METAWORLD, name.removeprefix("mw-"), 39, 4, episode_length=100, suite=METAWORLD)
        for name in _METAWORLD
    },
    **{name: _dm_control_spec(name, CUSTOM_SUITE) for name in (*_STOCHASTIC, *_FAILING)},
}


_OF_FILES: dict[str, TaskSpec] = {}
"""Tasks that are known from files alone."""


def task_spec(name: str) -> TaskSpec:
    """The spec of a registered task, or of the environment of gymnasium's that `gym:ID` names.

    Where dimensions are to be read from an environment, it is built, once in a process.

    Raises:
        LitPWMError: there is no such task, or its environment cannot be built or is of a kind that is not supported.
    """
    spec = known_spec(name)
    if not spec.make:
        return spec
    from lit_pwm.tasks.completing import completed  # loads gymnasium

    return completed(spec)


def known_spec(name: str) -> TaskSpec:
    """The spec of a task as it is known without building an environment.

    Raises:
        LitPWMError: there is no such task.
    """
    if (known := _SPECS.get(name) or _OF_FILES.get(name)) is not None:
        return known
    if name.startswith(GYM_PREFIX):
        from lit_pwm.tasks.gymnasium_registry import spec_of_id  # loads gymnasium

        return spec_of_id(name)
    raise LitPWMError(
        f"The task {name!r} is not known. {did_you_mean(name, _SPECS)} Task sets are {', '.join(TASK_SETS)}; any "
        f"environment of gymnasium is named by its id, such as gym:Hopper-v5; a task of your own is made known with "
        f"lit_pwm.tasks.register(TaskSpec(...))."
    )


def registered_specs() -> Mapping[str, TaskSpec]:
    """The specs of all registered tasks by name, as they are known without building an environment."""
    return MappingProxyType(_SPECS)


def remember(spec: TaskSpec) -> None:
    """Let `task_spec` and `make_env` find a task of a file, which `lit_pwm.tasks.file_specs` has looked at."""
    _OF_FILES[spec.name] = spec


def is_remembered(name: str) -> bool:
    """Whether a task is known from a file."""
    return name in _OF_FILES


def spec_if_known(name: str) -> TaskSpec | None:
    """The spec of a task, complete; None where there is none of the name, or no environment can be built to read it."""
    if name not in _SPECS and name not in _OF_FILES and not name.startswith(GYM_PREFIX):
        return None
    try:
        return task_spec(name)
    except LitPWMError:
        return None


def returns_have_dm_controls_scale(name: str) -> bool:
    """Whether returns of a task go from 0 to 1000, so that they can be averaged over tasks; builds no environment.

    Of a task that is not known here no other scale is known either.
    """
    spec = _SPECS.get(name) or _OF_FILES.get(name)
    return not name.startswith(GYM_PREFIX) if spec is None else spec.score_range == DM_CONTROL_SCORES


def registered_tasks() -> tuple[str, ...]:
    """The names of all registered tasks: `mt80` in index order, `stochastic`, `failing`, those added by `register`."""
    return tuple(_SPECS)


def register(spec: TaskSpec) -> None:
    """Add a task, so that `task_spec` and `make_env` find it by name.

    Registration holds in this process only. A process that is spawned, and does not import the code that registers,
    is handed the spec itself: `make_env` takes a spec in place of a name.

    Raises:
        LitPWMError: another task has this name, or a command line could not be given it.
    """
    name = spec.name
    if not isinstance(name, str) or not name.isprintable() or "," in name or name != name.strip() or not name:
        raise LitPWMError(
            f"A task cannot be registered as {name!r:.200}. Accepted: a text of printable characters without commas, "
            f"which separate the names of tasks, and without space around it."
        )
    if _SPECS.get(spec.name, spec) != spec:
        raise LitPWMError(
            f"A task named {spec.name!r} is registered already, as {_SPECS[spec.name]}. Give the new task another name."
        )
    _SPECS[spec.name] = spec
    allow(spec.module)


def action_mask(action_dims: Sequence[int], width: int | None = None) -> np.ndarray:
    """Which entries of a padded action each task uses.

    Args:
        action_dims: true action width of each of N tasks.
        width: the padded width A, by default the largest of `action_dims`.

    Returns:
        float32 [N, A]: row i holds ones in its first `action_dims[i]` entries, else zeros.

    Raises:
        LitPWMError: a task's actions are wider than `width`, or there is no task.
    """
    dims = np.asarray(action_dims, dtype=np.int64)
    if dims.ndim != 1 or dims.size == 0:
        raise LitPWMError(
            f"An action mask needs the action width of at least one task; action_dims is {action_dims!r}."
        )
    width = int(dims.max()) if width is None else width
    if dims.max() > width:
        raise LitPWMError(
            f"An action mask of width {width} was asked for, but task {int(dims.argmax())} of {dims.size} has "
            f"{int(dims.max())} action entries. Ask for a width of at least {int(dims.max())}."
        )
    return (np.arange(width) < dims[:, None]).astype(np.float32)
