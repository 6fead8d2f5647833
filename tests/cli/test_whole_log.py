"""The log of a run is whole at any moment, and goes on without what is beyond the update resumed from."""

import os
from pathlib import Path

import pytest

from lit_pwm.cli.continued_log import ContinuedCSVLogger, WholeCSVLogger
from lit_pwm.errors import LitPWMError


@pytest.fixture
def log(tmp_path):
    """A logger with the losses of three updates in its file, and that file."""
    logger = WholeCSVLogger(str(tmp_path))
    for step in range(3):
        logger.log_metrics({"loss": step / 4}, step)
    logger.save()
    return logger, Path(logger.log_dir) / "metrics.csv"


def test_a_log_that_gets_another_column_is_replaced_whole(log, monkeypatch):
    logger, file = log
    before = file.read_text()
    logger.log_metrics({"eval/return": 7.0}, 3)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            logger.save()
    assert file.read_text() == before
    assert [path.name for path in file.parent.iterdir()] == ["metrics.csv"]
    logger.save()
    assert file.read_text().split() == ["eval/return,loss,step", ",0.0,0", ",0.25,1", ",0.5,2", "7.0,,3"]


def test_a_log_that_goes_on_is_replaced_whole(log, tmp_path, monkeypatch):
    _, file = log
    before = file.read_text()
    going_on = ContinuedCSVLogger(str(tmp_path), 0, 2)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            _ = going_on.experiment
    assert file.read_text() == before
    going_on.log_metrics({"loss": 9.0}, 2)
    going_on.save()
    assert file.read_text().split() == ["loss,step", "0.0,0", "0.25,1", "9.0,2"]
    none_left = ContinuedCSVLogger(str(tmp_path), 0, 0)
    none_left.log_metrics({"other": 1.0}, 0)
    none_left.save()
    assert file.read_text().split() == ["other,step", "1.0,0"]


@pytest.mark.parametrize("end", ["0.5", "0.5,", "0.75,1", "\r\n", "\0\0\0", '"'])
def test_what_a_kill_has_cut_short_is_left_out(log, tmp_path, end):
    _, file = log
    with file.open("a", newline="") as out:
        out.write(end)
    going_on = ContinuedCSVLogger(str(tmp_path), 0, 3)
    going_on.log_metrics({"loss": 9.0}, 3)
    going_on.save()
    assert file.read_text().split() == ["loss,step", "0.0,0", "0.25,1", "0.5,2", "9.0,3"]


@pytest.mark.parametrize("kind", ["folder", "pipe", "dangling", "binary", "another's", "long"])
def test_a_log_that_is_something_else(tmp_path, kind):
    file = tmp_path / "lightning_logs/version_0/metrics.csv"
    file.parent.mkdir(parents=True)
    if kind == "folder":
        file.mkdir()
    elif kind == "pipe":
        os.mkfifo(file)
    elif kind == "dangling":
        file.symlink_to("nowhere")
    elif kind == "another's":
        file.symlink_to("/etc/passwd")
    else:
        file.write_bytes(bytes(range(256)) * 20 if kind == "binary" else b'a,"' + b"x" * 200_000 + b"\n")
    going_on = ContinuedCSVLogger(str(tmp_path), 0, 3)
    if kind in ("folder", "long"):
        with pytest.raises((LitPWMError, OSError), match=r"metrics\.csv"):  # the command line explains the system's
            going_on.log_metrics({"loss": 9.0}, 3)
        return
    going_on.log_metrics({"loss": 9.0}, 3)
    going_on.save()
    assert file.read_text().split() == ["loss,step", "9.0,3"]
    assert not file.is_symlink()
