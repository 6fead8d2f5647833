"""Stored episodes as videos: their actions are taken again from their seed, and shown only if that gives their data."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from datamodules.episode import Episode
from datamodules.rolling import EPISODE_KEYS, start_seed
from lit_pwm.errors import LitPWMError
from lit_pwm.evaluation.video import frame_rate, padded, write_video
from lit_pwm.tasks import task_spec
from lit_pwm.tasks.environment import TaskEnv, make_env
from lit_pwm.tasks.rendering import CannotRenderError

TOLERANCE = 1e-5
"""Largest difference of an observation's entry, relative to its magnitude where that is beyond 1."""
_WIDTH, _HEIGHT = 320, 240


class NoReplayError(Exception):
    """Why an episode cannot be shown, a sentence."""


def collected_seed(origin: Mapping[str, Any] | None, task: str, place: int) -> int:
    """The seed from which `collect` started an episode.

    Args:
        origin: what lies beside the store and says how it was made, if anything.
        task: the episode's task.
        place: its place among the task's episodes in the store.

    Raises:
        NoReplayError: it is not known.
    """
    if origin is None:
        raise NoReplayError("no file beside the store says how it was made, and from which seed")
    if origin.get("verb") != "collect":
        raise NoReplayError(f"the seeds of episodes are recorded by `collect` alone, and {_made(origin)}")
    try:
        seed, episodes, left_out = int(origin["seed"]), int(origin["episodes"]), set(origin["left_out"])
        first = list(origin["tasks"]).index(task) * EPISODE_KEYS
        wanted = [
            number for number in range(min(episodes, place + len(left_out) + 1)) if first + number not in left_out
        ]
        return start_seed(seed, task, wanted[place])
    except (KeyError, ValueError, TypeError, IndexError, OverflowError):
        raise NoReplayError("what lies beside the store is not about these episodes") from None


def film(episode: Episode, seed: int, path: Path) -> None:
    """Write the video of an episode.

    Args:
        episode: from a store.
        seed: of the environment, from which it started.
        path: of the video, an MP4.

    Raises:
        NoReplayError: the environment is not known or cannot be rendered here, or taking the episode's actions does not
            give its observations.
    """
    try:
        spec = task_spec(episode.task)  # a name in a file has nothing imported
        with contextlib.closing(make_env(spec)) as env:
            _require_same(episode, env, seed)
        with contextlib.closing(make_env(spec, render_mode="rgb_array", width=_WIDTH, height=_HEIGHT)) as env:
            env.drop_shadows()
            every, speed = frame_rate(env)
            write_video(path, _frames(episode, env, seed, every), speed)
    except CannotRenderError as error:
        raise NoReplayError(error.reason) from error
    except LitPWMError as error:
        raise NoReplayError(" ".join(str(error).split())) from error


def _frames(episode: Episode, env: TaskEnv, seed: int, every: int) -> Iterator[np.ndarray]:
    env.reset(seed=seed)
    for step, action in enumerate(episode.action):
        if step % every == 0 and (frame := env.render()) is not None:
            yield padded(frame)
        env.step(action)


def _require_same(episode: Episode, env: TaskEnv, seed: int) -> None:
    """Make sure that the actions give the observations, without rendering.

    Raises:
        NoReplayError: they do not.
    """
    obs, _ = env.reset(seed=seed)
    for step, action in enumerate([*episode.action, None]):
        expected = episode.obs[step]
        if obs.shape != expected.shape:
            raise NoReplayError(f"its observations have {len(expected)} entries, and the environment's have {len(obs)}")
        beyond = np.abs(obs - expected) / np.maximum(1, np.abs(expected))
        if not beyond.max() <= TOLERANCE:
            raise NoReplayError(
                f"taking its actions from its seed gives other observations from step {step} on (by "
                f"{beyond.max():.2g}): the environment is not the one that it was collected in, or the store is not as "
                f"it was collected"
            )
        if action is not None:
            try:
                obs, *_ = env.step(action)
            except LitPWMError:
                raise NoReplayError(f"the environment here ends it after {step} steps") from None


def _made(origin: Mapping[str, Any]) -> str:
    verb = str(origin.get("verb", ""))
    return f"this store was made by {verb[:40]!r}" if verb else "this store was imported"
