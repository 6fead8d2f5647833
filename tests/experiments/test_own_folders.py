"""Folders of experiments: one process at a time, replaced when the new is whole, and none deleted that is another's."""

import os
import subprocess
import sys

import pytest

from lit_pwm.errors import LitPWMError
from lit_pwm.experiments.own_folders import MARK, make_own, only_one, replacing_folder


def fill(folder, text):
    with replacing_folder(folder, overwrite=True) as new:
        (new / "record.json").write_text(text)


def fail(folder, error):
    with replacing_folder(folder, overwrite=True) as new:
        (new / "half").touch()
        raise error


def test_the_old_run_stays_until_the_new_one_is_whole(tmp_path):
    final = tmp_path / "runs/demo"
    fill(final, "old")
    with replacing_folder(final, overwrite=True) as new:
        (new / "record.json").write_text("new")
        assert (final / "record.json").read_text() == "old"
    assert (final / "record.json").read_text() == "new"
    assert [path.name for path in final.parent.iterdir()] == ["demo"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, LitPWMError])
def test_the_old_run_stays_where_the_new_one_fails(error, tmp_path):
    final = tmp_path / "demo"
    fill(final, "old")
    with pytest.raises(error):
        fail(final, error)
    assert (final / "record.json").read_text() == "old"
    fill(final, "next")  # what was left is made anew
    assert sorted(path.name for path in final.iterdir()) == sorted(["record.json", MARK])
    assert [path.name for path in tmp_path.iterdir()] == ["demo"]


def test_a_run_is_replaced_only_when_that_is_said(tmp_path):
    final = tmp_path / "demo"
    fill(final, "old")
    with pytest.raises(LitPWMError, match="--overwrite"), replacing_folder(final, overwrite=False):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["demo"]
    (tmp_path / "empty").mkdir()
    with replacing_folder(tmp_path / "empty", overwrite=False) as new:
        (new / "x").touch()
    assert (tmp_path / "empty/x").exists()


def test_a_kill_between_the_renamings_loses_nothing(tmp_path):
    final = tmp_path / "demo"
    fill(final, "old")
    final.rename(tmp_path / "demo.replaced")
    make_own(tmp_path / "demo.unfinished")
    with pytest.raises(LitPWMError, match="--overwrite"), replacing_folder(final, overwrite=False):
        pass
    assert (final / "record.json").read_text() == "old"


@pytest.mark.parametrize("name", ["demo.unfinished", "demo.replaced"])
def test_folders_of_others_are_never_deleted(name, tmp_path):
    (tmp_path / name).mkdir()
    (tmp_path / name / "thesis").write_text("years")
    (tmp_path / "demo").mkdir()
    with pytest.raises(LitPWMError, match="did not make it"), replacing_folder(tmp_path / "demo", overwrite=True):
        pass
    assert (tmp_path / name / "thesis").read_text() == "years"
    (tmp_path / "link").symlink_to(tmp_path / name)
    with pytest.raises(LitPWMError, match="is no folder"):
        make_own(tmp_path / "link")
    assert (tmp_path / name / "thesis").read_text() == "years"


def test_a_folder_of_others_is_not_replaced(tmp_path):
    final = tmp_path / "demo"
    final.mkdir()
    (final / "thesis").write_text("years")
    with pytest.raises(LitPWMError, match="did not make it"):
        fill(final, "new")
    (final / "thesis").rename(tmp_path / "thesis")
    with pytest.raises(LitPWMError, match="did not make it"), replacing_folder(final, overwrite=True):
        (tmp_path / "thesis").rename(final / "thesis")  # which comes meanwhile
    assert (final / "thesis").read_text() == "years"
    (final / "record.json").touch()  # one of an older version
    with replacing_folder(final, overwrite=True, known_by=("record.json",)) as new:
        (new / "new").touch()
    assert (final / "new").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["demo"]


@pytest.mark.parametrize("below", ["", "inside"])
def test_the_current_folder_is_not_deleted(below, tmp_path, monkeypatch):
    final = tmp_path / "demo"
    fill(final, "old")
    (final / below).mkdir(exist_ok=True)
    monkeypatch.chdir(final / below)
    for replace in (lambda: fill(final, "new"), lambda: make_own(final)):
        with pytest.raises(LitPWMError, match="you are in it"):
            replace()
        assert os.getcwd() == str(final / below)
        assert (final / "record.json").read_text() == "old"
    (tmp_path / "demo.elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "demo.elsewhere")
    fill(final, "new")
    assert (final / "record.json").read_text() == "new"


@pytest.mark.parametrize("kind", ["link", "folder"])
def test_a_lock_that_is_something_else_is_left_as_it_is(kind, tmp_path):
    (tmp_path / "precious").write_text("precious")
    place = tmp_path / ".lock"
    place.symlink_to(tmp_path / "precious") if kind == "link" else place.mkdir()
    with pytest.raises(LitPWMError, match="cannot be written to"), only_one(tmp_path, "demo"):
        pass
    assert (tmp_path / "precious").read_text() == "precious"


def test_two_do_not_work_in_one_folder(tmp_path):
    script = (
        "import sys\nfrom pathlib import Path\nfrom lit_pwm.experiments.own_folders import only_one\n"
        "with only_one(Path(sys.argv[1]), 'demo'):\n    print('in', flush=True)\n    sys.stdin.read()\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "report")]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipes) as other:
        assert other.stdout.readline() == "in\n"
        with pytest.raises(LitPWMError, match=f"Another demo works in '{tmp_path}/report'"):
            only_one(tmp_path / "report", "demo").__enter__()
        other.kill()
        other.wait()
    with only_one(tmp_path / "report", "demo"):  # a lock does not outlive its holder
        pass
