"""One episode of a policy as a video."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Generator, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lit_pwm.errors import LitPWMError
from lit_pwm.evaluation.acting import Policy, act_for_seeds
from lit_pwm.runtime.atomic import replacing
from lit_pwm.tasks.environment import TaskEnv, make_env
from lit_pwm.tasks.rendering import CannotRenderError

_LOG = logging.getLogger(__name__)
_FRAMES_PER_SECOND = 25
_ENCODING = ["-crf", "27", "-preset", "veryfast", "-threads", "1", "-movflags", "+faststart"]


@dataclass(frozen=True)
class Recording:
    """A recorded episode.

    Attributes:
        task: the task.
        seed: the environment's seed.
        episode_return: the sum of its rewards.
        path: the video; None where this machine could not make it.
        notice: why it could not.
    """

    task: str
    seed: int
    episode_return: float
    path: Path | None
    notice: str | None = None


def record_video(
    policy: Policy, task: str, seed: int, path: str | Path, *, width: int = 320, height: int = 240
) -> Recording:
    """Run one deterministic episode and write it as an MP4 that plays at the speed of simulated time.

    Every k-th agent step is a frame, so that there are about 25 in a second. Where this machine or the environment
    cannot render, the episode runs all the same and a notice is logged.

    Args:
        policy: acts.
        task: a registered task, or `gym:ID`.
        seed: the environment's seed.
        path: of the file, whose folder is made; it appears when it is complete.
        width: of dm_control's frames in pixels, a multiple of 16; environments of gymnasium have their own size.
        height: likewise.

    Raises:
        LitPWMError: the task cannot be run, or the file cannot be written.
    """
    rewards: list[float] = []
    try:
        env = make_env(task, render_mode="rgb_array", width=width, height=height)
    except CannotRenderError as error:
        notice = f"No video of {task}: {error.reason}."
        _LOG.warning(notice)
        with contextlib.closing(make_env(task)) as env:
            for _ in _episode(policy, task, seed, env, rewards):
                pass
        return Recording(task, seed, sum(rewards), None, notice)
    env.drop_shadows()
    every, speed = frame_rate(env)

    def frames() -> Generator[np.ndarray, None, None]:
        for step in _episode(policy, task, seed, env, rewards):
            if step % every == 0:
                frame = env.render()
                assert frame is not None
                yield padded(frame)

    with contextlib.closing(env):
        write_video(path, frames(), speed)
    return Recording(task, seed, sum(rewards), Path(path))


def frame_rate(env: TaskEnv) -> tuple[int, float]:
    """Every how many steps of an environment there is a frame, and how many in a second of simulated time."""
    native = env.metadata["render_fps"]
    every = max(1, round(native / _FRAMES_PER_SECOND))
    return every, native / every


def padded(frame: np.ndarray) -> np.ndarray:
    """A frame with black below and to the right of it, so that its sides are the multiples of 16 that a video needs."""
    height, width = frame.shape[:2]
    return np.pad(frame, ((0, -height % 16), (0, -width % 16), (0, 0)))


def _episode(policy: Policy, task: str, seed: int, env: TaskEnv, rewards: list[float]) -> Generator[int, None, None]:
    """Run an episode, appending to `rewards`; yields the number of steps done, before each step and at the end."""
    obs, _ = env.reset(seed=seed)
    ended = False
    while not ended:
        yield len(rewards)
        obs, reward, terminated, truncated, _ = env.step(act_for_seeds(policy, task, obs[None], [seed])[0])
        rewards.append(reward)
        ended = terminated or truncated
    yield len(rewards)


def write_video(path: str | Path, frames: Iterable[np.ndarray], frames_per_second: float) -> None:
    """Encode frames as H.264 in an MP4 file, whole or not at all.

    Args:
        path: the file, whose folder is made if need be.
        frames: uint8 [height, width, 3], all of one size, whose sides are multiples of 16.
        frames_per_second: at which they are shown.

    Raises:
        LitPWMError: there is no frame, or the file cannot be written.
    """
    import imageio_ffmpeg

    frames = iter(frames)
    first = next(frames, None)
    if first is None:
        raise LitPWMError(f"No frame was given for the video {str(path)!r}; give at least one.")
    size, count = (first.shape[1], first.shape[0]), 1
    with replacing(path, "The video") as beside:
        writer = imageio_ffmpeg.write_frames(
            str(beside), size, fps=frames_per_second, codec="libx264", quality=None, ffmpeg_log_level="error",
            output_params=[*_ENCODING],
        )  # fmt: skip
        with contextlib.closing(writer):
            writer.send(None)
            writer.send(np.ascontiguousarray(first))
            for frame in frames:
                writer.send(np.ascontiguousarray(frame))
                count += 1
        _require_frames(beside, count)


def _require_frames(path: Path, count: int) -> None:
    """Make sure that a video has so many frames: an encoder that cannot write on ends without a word.

    Raises:
        OSError: it has not.
    """
    import imageio_ffmpeg

    try:
        found = imageio_ffmpeg.count_frames_and_secs(path)[0]
    except RuntimeError as error:
        raise OSError(f"the encoder left no readable file of its {count} frames") from error
    if found != count:
        raise OSError(f"the encoder wrote {found} of {count} frames")
