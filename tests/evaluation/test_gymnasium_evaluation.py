"""Policies in environments of gymnasium: returns, scores, videos; ends that differ from episode to episode."""

import json

import gymnasium
import imageio_ffmpeg
import numpy as np
import pytest

from lit_pwm.evaluation.evaluator import RandomPolicy, evaluate_policy, evaluate_task, record_video, write_result
from lit_pwm.paths import file_name
from lit_pwm.tasks import TaskSpec, register
from lit_pwm.tasks import registry as registry_module
from lit_pwm.tasks.rendering import can_render

needs_rendering = pytest.mark.skipif(not can_render(), reason="nothing on this machine can render")


class Leaning:
    """Always the same action in [-1, 1]."""

    def __init__(self, task, action):
        self.task_names, self.action = (task,), np.array(action, np.float32)

    def act(self, obs, task, deterministic=True):
        return np.tile(self.action, (len(obs), 1))


@pytest.fixture
def point_mass(monkeypatch):
    monkeypatch.setattr(registry_module, "_SPECS", dict(registry_module._SPECS))
    register(TaskSpec("my/point mass", make="point_mass:make", kwargs={"field": 3.0}, score_range=(-60.0, 40.0)))
    return "my/point mass"


def test_returns_are_those_of_the_bare_environment():
    result = evaluate_task(Leaning("gym:Hopper-v5", [0, 0.3, 0.1]), "gym:Hopper-v5", 18, 7)
    bare, expected, lengths = gymnasium.make("Hopper-v5"), [], set()
    for seed in range(7, 25):
        bare.reset(seed=seed)
        rewards, ended = [], False
        while not ended:
            _, reward, terminated, truncated, _ = bare.step(np.array([0, 0.3, 0.1], np.float32))
            rewards.append(reward)
            ended = terminated or truncated
        expected.append(np.sum(np.array(rewards)))
        lengths.add(len(rewards))
    np.testing.assert_allclose(result.returns, expected, rtol=1e-12)
    assert len(lengths) > 3  # they end at different steps


def test_scores_are_normalised_by_the_tasks_own_range(point_mass, tmp_path):
    names = ("gym:Reacher-v5", point_mass, "cup-catch")
    result = evaluate_policy(RandomPolicy(0, names), names, 2, 0, mode="sync")
    write_result(result, tmp_path / "R.json")
    tasks = json.loads((tmp_path / "R.json").read_text())["tasks"]
    assert tasks["gym:Reacher-v5"]["normalised"] is None
    assert tasks[point_mass]["normalised"] == pytest.approx((tasks[point_mass]["mean"] + 60) / 100)
    assert tasks["cup-catch"]["normalised"] == tasks["cup-catch"]["mean"] / 1000


@needs_rendering
def test_a_video_of_mujoco(tmp_path):
    path = tmp_path / f"{file_name('gym:Hopper-v5')}.mp4"
    policy = Leaning("gym:Hopper-v5", [1, -1, 1])
    recording = record_video(policy, "gym:Hopper-v5", 3, path)
    assert recording.path == path
    assert path.name == "gym%3AHopper-v5.mp4"
    assert recording.episode_return == evaluate_task(policy, "gym:Hopper-v5", 1, 3, mode="sync").returns[0]
    frames, seconds = imageio_ffmpeg.count_frames_and_secs(path)
    assert frames == 1 + _steps(policy) // 5  # of 125 steps in a second, every fifth
    assert seconds == pytest.approx(frames / 25, abs=0.05)


def _steps(policy):
    steps = []
    evaluate_task(policy, "gym:Hopper-v5", 1, 3, mode="sync", on_step=steps.append)
    return len(steps)


def test_frames_of_any_size_are_padded_to_a_videos(point_mass, tmp_path):
    recording = record_video(Leaning(point_mass, [0, 0]), point_mass, 3, tmp_path / "x.mp4")
    reader = imageio_ffmpeg.read_frames(tmp_path / "x.mp4")
    assert next(reader)["size"] == (80, 48)  # of 70 x 45
    frame = np.frombuffer(next(reader), np.uint8).reshape(48, 80, 3)
    reader.close()
    assert frame[:45, :70].mean() > 200
    assert frame[46:].max() < 60
    assert frame[:, 73:].max() < 60
    assert recording.notice is None


def test_an_environment_that_does_not_render_is_run_without(point_mass, tmp_path):
    register(TaskSpec("blind", make="point_mass:blind"))
    recording = record_video(Leaning("blind", [0, 0]), "blind", 3, tmp_path / "x.mp4")
    assert recording.path is None
    assert recording.notice == "No video of blind: what makes its environment takes no render_mode."
    assert recording.episode_return != 0
    assert not (tmp_path / "x.mp4").exists()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("cup-catch", "cup-catch"),
        ("gym:Hopper-v5", "gym%3AHopper-v5"),
        ("gym:ALE/Pong-v5", "gym%3AALE%2FPong-v5"),
        ("a%3A", "a%253A"),
        ("..", "%2E%2E"),
        (".hidden", "%2Ehidden"),
        ("ü \\\0", "%C3%BC%20%5C%00"),
        ("", "%"),
    ],
)
def test_names_of_files(name, expected):
    assert file_name(name) == expected


def test_long_names_of_files_differ():
    names = {file_name("x" * 5000), file_name("x" * 5001), file_name("ü" * 200)}
    assert len(names) == 3
    assert max(map(len, names)) < 200
