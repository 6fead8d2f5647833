"""The verbs `collect`, `data info` and `data check`."""

import os
import re
import subprocess
import sys

import h5py
import numpy as np
import pytest

from datamodules import EpisodeStore, EpisodeWriter
from lit_pwm.cli.main import build_parser
from lit_pwm.cli.main import run as command
from lit_pwm.errors import LitPWMError


def run(*argv):
    arguments = build_parser().parse_args([str(argument) for argument in argv])
    return arguments.run(arguments)


def test_collect_then_info_then_check(tmp_path, capsys):
    path = tmp_path / "made" / "here" / "s.h5"
    options = ["--behaviour", "random", "--workers", "1", "--seed", "3"]
    assert run("collect", "--tasks", "cup-catch, reacher-easy", "--episodes", "2", "--out", path, *options) == 0
    said = capsys.readouterr()
    assert "4 episodes of 2 tasks, 2,000 transitions in 2,004 rows" in said.out
    assert "4/4" in said.err  # the progress bar's last state
    assert "episodes/s" in said.err
    assert [e.source for e in EpisodeStore(path)] == ["random"] * 4
    assert run("data", "info", path) == 0
    text = capsys.readouterr().out
    assert text == said.out
    assert "cup-catch: 2 episodes of 500 transitions, 0 terminated; obs 8, action 2" in text
    assert run("data", "check", path) == 0
    assert "no faults" in capsys.readouterr().out


def test_names_in_a_file_steer_no_terminal(tmp_path, capsys):
    name, path = "a\x1b[2J\nb\u202e", tmp_path / "s.h5"
    with EpisodeWriter(path, tasks={name: (3, 1)}) as writer:
        writer.append(
            task=name, obs=np.zeros((5, 3)), action=np.zeros((4, 1)), reward=np.zeros(4), source="\x1b]0;x\x07"
        )
    assert EpisodeStore(path).task_names == (name,)
    with h5py.File(path, "r+") as file:
        file["action"][0] = 3.0
    assert run("data", "info", path) == 0
    assert run("data", "check", path) == 1
    assert command(["data", "info", str(tmp_path / "\x1b[2J.h5")]) == 2
    said = capsys.readouterr()
    assert r"\x1b[2J.h5" in said.err
    assert not any(character in said.out + said.err for character in "\x1b\x07\u202e")


def test_info_shows_a_histogram_of_returns(make_store, capsys):
    lengths = [10] * 3 + [30]  # the return of episode e is about e times its length
    run("data", "info", make_store([("cup-catch", length) for length in lengths]))
    text = capsys.readouterr().out
    bars = re.findall(r"^ +([\d.]+) to +([\d.]+) +(\d+) ?(█*)$", text, re.MULTILINE)
    assert len(bars) == 10
    assert sum(int(count) for _, _, count, _ in bars) == 4
    assert [int(bars[i][2]) for i in (0, 1, 2, 9)] == [1, 1, 1, 1]
    assert len(bars[0][3]) == len(bars[9][3]) > 0
    assert float(bars[9][1]) == pytest.approx(90.4, abs=0.05)
    assert "cup-catch: 4 episodes of 10 to 30 transitions" in text
    assert "Without episodes: cartpole-swingup, walker-walk" in text


def test_check_lists_all_faults_and_exits_1(make_store, capsys):
    path = make_store([("cup-catch", 10)] * 3)
    with h5py.File(path, "r+") as file:
        file["obs"][4, 0] = np.nan
        file["reward"][10] = 1
    assert run("data", "check", path) == 1
    text = capsys.readouterr().err
    assert "2 kinds of faults" in text
    assert "obs is not finite" in text
    assert "reward is not NaN in the last row" in text


@pytest.mark.parametrize("verb", ["info", "check"])
def test_no_store_is_an_error(tmp_path, verb):
    (tmp_path / "notes.h5").write_text("no store")
    for name in ("notes.h5", "nowhere.h5"):
        with pytest.raises(LitPWMError, match=name):
            run("data", verb, tmp_path / name)


WRONG = [
    (["--tasks", "cup-cath"], "'cup-catch'"),
    (["--tasks", ","], "names no task"),
    (["--episodes", "0"], "episodes"),
    (["--workers", "0"], "workers"),
    (["--seed", "-1"], "seed"),
    (["--behaviour", "nowhere.ckpt"], "nowhere.ckpt"),
]


@pytest.mark.parametrize(("change", "says"), WRONG)
def test_wrong_arguments_leave_nothing(tmp_path, change, says):
    base = ["--tasks", "cup-catch", "--episodes", "1", "--out", tmp_path / "s.h5", "--workers", "1"]
    with pytest.raises(LitPWMError, match=says):
        run("collect", *base, *change)
    assert os.listdir(tmp_path) == []


def test_arguments_are_checked_before_anything_slow_is_loaded(mixed_store, tmp_path):
    script = f"""
import sys
from lit_pwm.cli.main import build_parser
from lit_pwm.errors import LitPWMError
parser = build_parser()
for argv in ["data", "info", {str(mixed_store)!r}], ["data", "check", {str(mixed_store)!r}]:
    arguments = parser.parse_args(argv)
    assert arguments.run(arguments) == 0
for change in {[change for change, _ in WRONG]!r}:
    argv = ["collect", "--tasks", "cup-catch", "--episodes", "1", "--out", {str(tmp_path / "s.h5")!r}, *change]
    try:
        arguments = parser.parse_args(argv)
        arguments.run(arguments)
    except LitPWMError:
        continue
    raise AssertionError(change)
heavy = {{"torch", "lightning", "gymnasium", "dm_control", "mujoco"}} & set(sys.modules)
assert not heavy, heavy
"""
    subprocess.run([sys.executable, "-W", "error", "-c", script], check=True, timeout=60, stdout=subprocess.DEVNULL)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_info_of_returns_that_are_not_finite(make_store, version_1, capsys, value):
    path = version_1(make_store([("cup-catch", 20)] * 6))
    with h5py.File(path, "r+") as file:
        file["reward"][25] = value
    assert run("data", "info", path) == 0
    shown = capsys.readouterr().out
    assert "the returns of 1 are not finite" in shown
    assert "█" in shown
    assert "nan" not in shown
