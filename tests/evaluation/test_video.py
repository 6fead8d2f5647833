"""Videos: real frames of the very episode whose return is reported, whole files or none."""

import gc
import logging
import re
import resource
import subprocess
import sys

import imageio_ffmpeg
import numpy as np
import pytest

from lit_pwm.errors import LitPWMError
from lit_pwm.evaluation.evaluator import evaluate_task, record_video
from lit_pwm.evaluation.video import write_video
from lit_pwm.tasks.rendering import can_render

needs_rendering = pytest.mark.skipif(not can_render(), reason="nothing on this machine can render")
KEEP_STILL = """
import logging, sys
import numpy as np
from lit_pwm.evaluation.evaluator import RandomPolicy, record_video
logging.basicConfig(format="%(message)s")
recording = record_video(RandomPolicy(0), "pendulum-swingup", 3, sys.argv[1])
print(recording.path, recording.notice, recording.episode_return)
"""


def decoded(path):
    """Frames [N, height, width, 3] and frames per second, as ffmpeg itself reads them."""
    ffmpeg = imageio_ffmpeg.get_ffmpeg_exe()
    about = subprocess.run([ffmpeg, "-i", path], capture_output=True, text=True, check=False).stderr
    width, height = map(int, re.search(r"Video: h264.* (\d+)x(\d+)", about).groups())
    command = [ffmpeg, "-v", "error", "-i", path, "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    raw = subprocess.run(command, capture_output=True, check=True).stdout
    return np.frombuffer(raw, np.uint8).reshape(-1, height, width, 3), float(re.search(r"([\d.]+) fps", about)[1])


@needs_rendering
def test_a_video_shows_the_episode_whose_return_is_reported(short_task, constant_policy, tmp_path):
    policy, path = constant_policy([1.0], [short_task]), tmp_path / "videos" / "spin.mp4"
    recording = record_video(policy, short_task, 5, path)
    steps = len(policy.seen)
    assert recording.path == path
    assert recording.episode_return == evaluate_task(policy, short_task, 1, 5, mode="sync").returns[0]
    frames, rate = decoded(path)
    # A step takes 0.02 s: every second one is a frame, and the first observation is one too.
    assert 10 < steps < 60
    assert frames.shape == (1 + steps // 2, 240, 320, 3)
    assert rate == 25
    assert path.stat().st_size < 300_000
    assert frames[0].std() > 2  # no empty picture
    assert np.abs(frames[-1].astype(float) - frames[0]).max() > 50  # nor a still one
    assert list(path.parent.iterdir()) == [path]


def test_without_rendering_the_episode_runs_and_a_notice_says_why(tmp_path):
    path = tmp_path / "x.mp4"
    done = subprocess.run(
        [sys.executable, "-c", KEEP_STILL, str(path)],
        env={"MUJOCO_GL": "disabled", "PATH": "/usr/bin:/bin"},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.split()[0] == "None"
    assert float(done.stdout.split()[-1]) >= 0
    assert done.stderr.strip() == "No video of pendulum-swingup: nothing on this machine can render."
    assert not path.exists()


def frames_of_a_ramp(count):
    return (np.full((48, 64, 3), 10 * i, np.uint8) for i in range(count))


def test_frames_survive_encoding(tmp_path):
    write_video(tmp_path / "ramp.mp4", frames_of_a_ramp(20), 12.5)
    frames, rate = decoded(tmp_path / "ramp.mp4")
    assert frames.shape == (20, 48, 64, 3)
    assert rate == 12.5
    np.testing.assert_allclose(frames.mean(axis=(1, 2, 3)), 10 * np.arange(20), atol=4)


def test_a_failure_while_drawing_leaves_no_file_and_keeps_the_old_one(tmp_path):
    path = tmp_path / "ramp.mp4"
    path.write_bytes(b"old")

    def failing():
        yield from frames_of_a_ramp(3)
        raise RuntimeError("the renderer is gone")

    with pytest.raises(RuntimeError, match="the renderer is gone"):
        write_video(path, failing(), 25)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_video_that_cannot_be_written_is_refused(tmp_path, caplog):
    (tmp_path / "file").write_text("")
    with pytest.raises(LitPWMError, match="could not be written"):
        write_video(tmp_path / "file" / "x.mp4", frames_of_a_ramp(2), 25)
    with caplog.at_level(logging.ERROR), pytest.raises(LitPWMError, match="could not be written"):
        write_video(tmp_path / "x.unknown", frames_of_a_ramp(2), 25)
    with pytest.raises(LitPWMError, match="No frame"):
        write_video(tmp_path / "x.mp4", frames_of_a_ramp(0), 25)
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # imageio leaves the encoder's pipe
@pytest.mark.parametrize("largest", [0, 100, 1500])
def test_an_encoder_that_cannot_write_on_leaves_no_video(tmp_path, largest):
    """It takes all frames before it fails, and says nothing."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest, limits[1]))
    try:
        with pytest.raises(LitPWMError, match="video could not be written"):
            write_video(tmp_path / "ramp.mp4", frames_of_a_ramp(20), 12.5)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    gc.collect()  # here, and not in another test
    assert list(tmp_path.iterdir()) == []
