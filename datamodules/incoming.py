"""What a writer is handed, checked before anything is kept: tasks, and the arrays of an episode."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from datamodules.layout import LONGEST_NAME, LONGEST_SOURCE, alike_names, text_fault
from datamodules.shards import Rows
from datamodules.values import ACTION_LIMIT, REWARD_LIMIT
from lit_pwm.errors import LitPWMError, did_you_mean
from lit_pwm.tasks.registry import TaskSpec, task_spec
from lit_pwm.tasks.stored_specs import registered_spec, stored_spec

_WIDEST = 1_000_000
_LONGEST_REPEAT = 1_000_000


def checked_tasks(tasks: Mapping[str, tuple[int, int]]) -> dict[str, tuple[int, int]]:
    """Task names and widths, having made sure that they are such.

    Raises:
        LitPWMError: there is no task, a name is no text that a store can hold or is given twice, or a width is no
            positive whole number.
    """
    if not isinstance(tasks, Mapping) or not tasks:
        raise LitPWMError(f"A store needs at least one task, given as {{name: (obs_dim, action_dim)}}, not {tasks!r}.")
    checked = {}
    for name, dims in tasks.items():
        if fault := text_fault(name, LONGEST_NAME):
            raise LitPWMError(
                f"The task name {name if not isinstance(name, str) else name[:80]!r} {fault}. Names of tasks are texts "
                f"of 1 to {LONGEST_NAME:,} bytes of UTF-8 without NUL."
            )
        widths = tuple(dims) if isinstance(dims, Iterable) else ()
        if len(widths) != 2 or not all(_is_whole(width, _WIDEST) for width in widths):
            raise LitPWMError(
                f"The tasks of a store are given as name: (obs_dim, action_dim) with widths from 1 to {_WIDEST:,}; "
                f"{name!r} has {dims!r}."
            )
        checked[str(name)] = (int(widths[0]), int(widths[1]))
    if alike := alike_names(checked):
        raise LitPWMError(
            f"The task names {alike[0]!r} and {alike[1]!r} differ in Unicode normalisation alone and look the same. "
            f"Give one of them another name."
        )
    return checked


def checked_action_repeat(action_repeat: int) -> int:
    """The action repeat.

    Raises:
        LitPWMError: it is no positive whole number.
    """
    if not _is_whole(action_repeat, _LONGEST_REPEAT):
        raise LitPWMError(f"The action repeat of a store is {action_repeat!r}; give a whole number of 1 or more.")
    return int(action_repeat)


def checked_specs(
    tasks: Mapping[str, tuple[int, int]], action_repeat: int | None, specs: Iterable[TaskSpec] | None
) -> dict[str, dict[str, Any]]:
    """What a store says of its tasks' environments, by task.

    Args:
        tasks: the store's, name → (obs_dim, action_dim).
        action_repeat: the store's; None where each task has its spec's.
        specs: of its tasks; of those that are registered, their own where widths and action repeat agree, if None.

    Raises:
        LitPWMError: a spec is of no task of the store, or of one with other widths or another action repeat.
    """
    if specs is None:
        known = [task_spec(name) for name, dims in tasks.items() if registered_spec(name, *dims) is not None]
        return {
            spec.name: stored_spec(spec)
            for spec in known
            if (spec.obs_dim, spec.action_dim) == tasks[spec.name] and action_repeat in (None, spec.action_repeat)
        }
    found = {}
    for spec in specs:
        ours, theirs = tasks.get(spec.name), (spec.obs_dim, spec.action_dim)
        if ours is None:
            raise LitPWMError(f"The store was given a spec of {spec.name!r}. {did_you_mean(spec.name, tasks)}")
        if theirs != ours or action_repeat not in (None, spec.action_repeat):
            raise LitPWMError(
                f"The spec of {spec.name!r} has {theirs[0]} observation and {theirs[1]} action entries and action "
                f"repeat {spec.action_repeat}, and the store {ours[0]}, {ours[1]} and {action_repeat}. Give the spec "
                f"of the environment that the episodes come from."
            )
        found[spec.name] = stored_spec(spec)
    return found


def _is_whole(value: object, largest: int) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool) and 0 < int(value) <= largest


def checked_rows(
    tasks: Mapping[str, tuple[int, int]],
    task: str,
    obs: ArrayLike,
    action: ArrayLike,
    reward: ArrayLike,
    terminated: bool,
    source: str,
    where: str,
    clamp_rewards: bool = False,
) -> Rows:
    """An episode's arrays in float32, having made sure that they are one episode of the task.

    Args:
        tasks: task name → (obs_dim, action_dim).
        task: the episode's.
        obs: [T+1, O].
        action: [T, A]; what is beyond ±1 by at most 1e-6 is clipped and counted.
        reward: [T].
        terminated: whether it ended by termination.
        source: what acted.
        where: what the episode is called in errors.
        clamp_rewards: clamp and count rewards beyond the range of a model's bins instead of refusing them.

    Raises:
        LitPWMError: they are not.
    """
    if not isinstance(task, str) or task not in tasks:
        raise LitPWMError(f"The task {task!r} of {where} is not among the store's. {did_you_mean(str(task), tasks)}")
    (obs_dim, action_dim), of = tasks[task], f"of {where} ({task!r})"
    arrays = {
        name: _numbers(values, f"{name} {of}")
        for name, values in (("obs", obs), ("action", action), ("reward", reward))
    }
    length = len(arrays["reward"]) if arrays["reward"].ndim == 1 else 0
    expected = {"obs": (length + 1, obs_dim), "action": (length, action_dim), "reward": (length,)}
    found = {name: array.shape for name, array in arrays.items()}
    if length < 1 or found != expected:
        shapes = ", ".join(f"{name} {list(shape)}" for name, shape in found.items())
        raise LitPWMError(
            f"The arrays {of} have shapes {shapes}. An episode of T actions, at least one, has obs "
            f"[T+1, {obs_dim}], action [T, {action_dim}] and reward [T]."
        )
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            place = [int(i) for i in np.argwhere(~np.isfinite(array))[0]]
            raise LitPWMError(
                f"The {name} {of} holds {array[tuple(place)]} at {place}; all numbers must be finite "
                f"in float32. (TD-MPC2's files are one row off: NaN in each episode's first action and reward.)"
            )
    if not isinstance(terminated, (bool, np.bool_, int, np.integer)) or terminated not in (0, 1):
        raise LitPWMError(f"terminated {of} is {terminated!r}; give True or False.")
    if fault := text_fault(source, LONGEST_SOURCE):
        raise LitPWMError(
            f"The source {of} {fault}; give a text of 1 to {LONGEST_SOURCE} bytes of UTF-8 that says what acted."
        )
    return _in_range(arrays, of, clamp_rewards)


def _in_range(arrays: dict[str, np.ndarray], of: str, clamp_rewards: bool) -> Rows:
    """The arrays, with actions and rewards in their ranges."""
    action, reward = arrays["action"], arrays["reward"]
    if (np.abs(action) > ACTION_LIMIT).any():
        step = int(np.argmax((np.abs(action) > ACTION_LIMIT).any(axis=1)))
        raise LitPWMError(
            f"The action {of} is beyond [-1, 1], from {action.min():.7g} to {action.max():.7g} (first: row "
            f"{step}). Policies act in [-1, 1]: divide actions by the environment's bounds before they are stored."
        )
    clipped, clamped = int((np.abs(action) > 1).sum()), int((np.abs(reward) > REWARD_LIMIT).sum())
    if clamped and not clamp_rewards:
        step = int(np.argmax(np.abs(reward) > REWARD_LIMIT))
        raise LitPWMError(
            f"The reward {of} is beyond ±{REWARD_LIMIT:,.1f}, from {reward.min():.7g} to {reward.max():.7g} (first: "
            f"row {step}): a model cannot tell such rewards apart. Scale the task's rewards down, or have them clamped "
            f"(clamp_rewards=True, --clamp-rewards), which the store records."
        )
    return Rows(
        arrays["obs"], np.clip(action, -1, 1), np.clip(reward, -REWARD_LIMIT, REWARD_LIMIT), clipped, clamped
    )  # fmt: skip


def _numbers(values: ArrayLike, what: str) -> np.ndarray:
    """Real numbers as float32; those beyond its range become infinite.

    Raises:
        LitPWMError: they are something else, which would become numbers without a word: masked entries, complex
            numbers, truth values, times, texts, objects.
    """
    try:
        # Lists of masked arrays keep their masks only here.
        array = np.ma.asanyarray(values) if isinstance(values, (list, tuple)) else np.asanyarray(values)
    except Exception as error:  # of whatever kind of array it is
        raise LitPWMError(f"The {what} is no array of numbers: {(str(error).splitlines() or [''])[0]}.") from error
    if np.ma.is_masked(array):
        raise LitPWMError(
            f"The {what} has {int(np.ma.getmaskarray(array).sum())} masked entries; what is missing cannot be stored. "
            f"Fill them in, or leave the episode out."
        )
    array = np.asarray(array)
    if array.dtype.kind not in "fiu":
        raise LitPWMError(
            f"The {what} is no array of numbers: its type is {array.dtype}. Give floats or whole numbers."
        )
    with np.errstate(over="ignore"):
        return array.astype(np.float32)
