"""What a command writes: checked before the work, written before it is printed, and never in the place of a device."""

import json
import os
import subprocess
import sys

import pytest

from datamodules import EpisodeStore
from lit_pwm.cli.main import fail
from lit_pwm.errors import LitPWMError
from lit_pwm.runtime.outputs import check_file, check_folder

FIXTURES = os.path.join(os.path.dirname(__file__), "..", "fixtures_v1")
EVALUATE = ["evaluate", "--checkpoint", os.path.join(FIXTURES, "mlp_policy.ckpt"), "--episodes", "1"]


def evaluate(tmp_path, *options, **streams):
    return subprocess.run(
        [sys.executable, "-m", "lit_pwm", *EVALUATE, *options], cwd=tmp_path, text=True, check=False, **streams
    )


def test_a_result_is_there_though_its_reader_has_gone(tmp_path):
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as closed:
        done = evaluate(tmp_path, "--out", "r.json", stdout=closed, stderr=subprocess.PIPE)
    assert done.returncode == 141, done.stderr
    assert "Traceback" not in done.stderr
    assert json.loads((tmp_path / "r.json").read_text())["tasks"]


@pytest.mark.parametrize("options", [["--out", "folder"], ["--video", "file"], ["--out", "file/r.json"]])
def test_what_cannot_be_written_is_refused_before_an_episode(options, tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    done = evaluate(tmp_path, *options, capture_output=True)
    assert done.returncode == 2
    assert options[0] in done.stderr
    assert "steps" not in done.stderr  # no bar of episodes
    assert sorted(os.listdir(tmp_path)) == ["file", "folder"]


def test_devices_inputs_and_impossible_names_are_refused(tmp_path):
    (tmp_path / "in").touch()
    (tmp_path / "link").symlink_to("in")
    for path in ("/dev/null", tmp_path / "in", tmp_path / "link", "a\0b", tmp_path / ("x" * 300), "/proc/new/r.json"):
        with pytest.raises(LitPWMError, match="--out is"):
            check_file(path, "--out", [tmp_path / "in"])
    for path in (tmp_path / "in", "a\0b", tmp_path / "in/below", "/proc/new"):
        with pytest.raises(LitPWMError, match="--video is"):
            check_folder(path, "--video")
    assert sorted(os.listdir(tmp_path)) == ["in", "link"]


def test_a_check_leaves_a_file_as_it_is(tmp_path):
    (tmp_path / "r.json").write_text("old")
    check_file(tmp_path / "r.json", "--out")
    check_file(tmp_path / "new/deep/r.json", "--out")
    check_folder(tmp_path / "videos", "--video")
    assert (tmp_path / "r.json").read_text() == "old"
    assert list(tmp_path.rglob("*.json")) == [tmp_path / "r.json"]


@pytest.mark.parametrize("gone", ["closed", "full"])
def test_work_goes_on_though_nobody_sees_how_far_it_is(gone, tmp_path):
    reading, writing = os.pipe()
    os.close(reading)
    line = ["collect", "--tasks", "pendulum-swingup", "--episodes", "2", "--workers", "1", "--out", "s.h5"]
    with os.fdopen(writing, "w") if gone == "closed" else open("/dev/full", "w") as stderr:
        done = subprocess.run(
            [sys.executable, "-m", "lit_pwm", *line], cwd=tmp_path, stderr=stderr, stdout=subprocess.PIPE, check=False
        )
    assert done.returncode == 0
    assert b"2 episodes" in done.stdout
    assert sorted(os.listdir(tmp_path)) == ["s.h5", "s.json"]


def test_a_process_without_stdout_and_stderr_works_and_writes_into_no_file(tmp_path):
    """As a service starts it; SIGTERM writes a line to number 2, which must be no file that was opened since."""
    line = ["collect", "--tasks", "pendulum-swingup", "--episodes", "2", "--workers", "1", "--out", "s.h5"]
    done = subprocess.run(["sh", "-c", '"$@" <&- >&- 2>&-', "sh", sys.executable, "-m", "lit_pwm", *line], cwd=tmp_path)
    assert done.returncode == 0
    assert len(EpisodeStore(tmp_path / "s.h5")) == 2
    line = f"import os; from lit_pwm.runtime import processes as p; p.open_standard_streams(); f = open({'f'!r}, 'w');"
    script = line + "os.write(2, b'said'); print('said', flush=True); print('said', file=f); f.close()"
    subprocess.run(["sh", "-c", '"$@" <&- >&- 2>&-', "sh", sys.executable, "-c", script], cwd=tmp_path, check=True)
    assert (tmp_path / "f").read_text() == "said\n"


def test_names_in_an_error_steer_no_terminal(capsys):
    assert fail(LitPWMError("There is no task 'x'. Accepted: \x1b[2J, \u202eé, ü.")) == 2
    assert r"Accepted: \x1b[2J, \u202eé, ü." in capsys.readouterr().err
