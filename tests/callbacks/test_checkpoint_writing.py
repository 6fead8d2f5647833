"""Checkpoints are whole or not there."""

import errno
import os
import resource
import signal
import subprocess
import sys
import time

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

import callbacks
from lit_pwm.errors import LitPWMError, NonFiniteLossError
from lit_pwm.runtime.atomic import replacing, replacing_folder, replacing_part
from lit_pwm.updates.checkpoint_io import write_tensors

CONTENT = {"state_dict": {"weight": torch.arange(200_000.0)}, "global_step": 3}


@pytest.fixture
def small_files():
    """As on a full disk, a write beyond 100 kB fails, here with EFBIG."""
    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, handler)


def test_a_disk_that_is_full_keeps_the_last_whole_file(tmp_path, small_files):
    file = tmp_path / "last.ckpt"
    file.write_bytes(b"whole")
    with pytest.raises(LitPWMError, match=rf"checkpoint could not be written to '{file}': File too large"):
        callbacks.WholeCheckpointIO().save_checkpoint(CONTENT, file)
    assert os.listdir(tmp_path) == ["last.ckpt"]
    assert file.read_bytes() == b"whole"


def test_the_systems_own_error_is_told(tmp_path, small_files):
    with pytest.raises(OSError, match="File too large") as caught:
        write_tensors(CONTENT, tmp_path / "x")
    assert caught.value.errno == errno.EFBIG


def test_what_is_written_is_read_again(tmp_path):
    file = tmp_path / "new" / "last.ckpt"
    writer = callbacks.WholeCheckpointIO()
    writer.save_checkpoint(CONTENT, str(file))
    assert torch.equal(writer.load_checkpoint(file, weights_only=True)["state_dict"]["weight"], torch.arange(200_000.0))
    assert os.listdir(file.parent) == ["last.ckpt"]


def test_what_is_not_as_it_was_written_is_refused(tmp_path):
    """torch itself reads it without a word."""
    file, writer = tmp_path / "last.ckpt", callbacks.WholeCheckpointIO()
    writer.save_checkpoint(CONTENT, str(file))
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    assert not torch.equal(torch.load(file, weights_only=True)["state_dict"]["weight"], torch.arange(200_000.0))
    with pytest.raises(LitPWMError, match=r"last\.ckpt.*checksum"):
        writer.load_checkpoint(file, weights_only=True)


def test_nothing_goes_through_the_folder_for_temporary_files(tmp_path, run, pretraining, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path / "nowhere"))
    last = callbacks.LastCheckpoint()
    best = ModelCheckpoint(tmp_path / "kept", monitor="val/loss")  # another's checkpoints are written so too
    trainer = run(pretraining(), tmp_path, [best, last], 4, enable_checkpointing=True)
    assert isinstance(trainer.strategy.checkpoint_io, callbacks.WholeCheckpointIO)
    assert torch.load(last.best_model_path, weights_only=True)["global_step"] == 4
    assert torch.load(best.best_model_path, weights_only=True)["global_step"] == 4


def test_a_run_whose_disk_is_full_ends_with_what_it_has(tmp_path, run, pretraining, request):
    last = callbacks.LastCheckpoint(every_n_updates=2)

    class Fill(callbacks.RNGState):
        def on_train_batch_start(self, trainer, *_):
            if trainer.global_step == 3:
                request.getfixturevalue("small_files")

    with pytest.raises(LitPWMError, match=r"last\.ckpt.*File too large"):
        run(pretraining(latent_dim=128), tmp_path, [Fill(), last], 6, logger=False, enable_checkpointing=True)
    (left,) = (tmp_path / "checkpoints").iterdir()
    assert torch.load(left, weights_only=True)["global_step"] == 2


def test_a_loss_that_is_not_finite_is_told_where_nothing_can_be_saved(tmp_path, run, pretraining, request):
    class Poison(callbacks.RNGState):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            if trainer.global_step == 2:
                batch["reward"][0, 0] = torch.nan
                request.getfixturevalue("small_files")

    with pytest.raises(NonFiniteLossError, match=r"finite.*last_good\.ckpt.*File too large"):
        run(pretraining(latent_dim=128), tmp_path, [Poison(), callbacks.NonFiniteGuard()], 6, logger=False)
    assert [path.name for path in tmp_path.rglob("*") if path.suffix in (".pt", ".ckpt")] == ["non_finite_batch.pt"]
    assert not list(tmp_path.rglob("*.part"))


@pytest.mark.parametrize("write", [replacing, replacing_part])
def test_a_process_that_is_killed_before_it_renames_leaves_the_old_file(tmp_path, write):
    file = tmp_path / "last.ckpt"
    file.write_bytes(b"whole")
    script = f"""
import os, signal, sys
from lit_pwm.runtime.atomic import {write.__name__} as write
with write(sys.argv[1], "The file") as beside:
    beside.write_bytes(b"half")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    subprocess.run([sys.executable, "-c", script, file], check=False)
    assert file.read_bytes() == b"whole"
    assert list(tmp_path.glob("*.ckpt")) == [file] or write is replacing
    if write is replacing_part:
        assert len(list(tmp_path.glob(".*.part"))) == 1
        with write(file, "The file") as beside:  # the next one tidies up
            beside.write_bytes(b"new")
        assert os.listdir(tmp_path) == ["last.ckpt"]
        assert file.read_bytes() == b"new"


def test_an_unfinished_file_of_a_running_process_is_left_alone(tmp_path):
    sleeper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        with replacing_part(tmp_path / "a", "It") as mine:
            mine.write_text("")
            theirs = tmp_path / mine.name.replace(str(os.getpid()), str(sleeper.pid))
            theirs.write_text("")
            with replacing_part(tmp_path / "b", "It") as other:
                other.write_text("")
            assert theirs.exists()
            assert mine.exists()
    finally:
        sleeper.kill()
        sleeper.wait()
    time.sleep(0)
    with replacing_part(tmp_path / "b", "It") as other:
        other.write_text("")
    assert not theirs.exists()


def test_a_folder_of_a_process_that_was_killed_is_removed_by_the_next(tmp_path):
    script = """
import os, signal, sys
from lit_pwm.runtime.atomic import replacing_folder
with replacing_folder(sys.argv[1], "The folder") as beside:
    (beside / "inner").mkdir()
    (beside / "inner" / "file").touch()
    os.kill(os.getpid(), signal.SIGKILL)
"""
    subprocess.run([sys.executable, "-c", script, tmp_path / "new"], check=False)
    (left,) = tmp_path.iterdir()
    assert left.is_dir()
    with replacing_folder(tmp_path / "other", "The folder") as beside:
        (beside / "file").touch()
        assert not left.exists()
    assert os.listdir(tmp_path) == ["other"]
    assert os.listdir(tmp_path / "other") == ["file"]


def test_a_folder_is_made_where_a_link_leads(tmp_path):
    for place, exists in (("empty", True), ("new", False)):
        if exists:
            (tmp_path / place).mkdir()
        (link := tmp_path / f"to_{place}").symlink_to(place)
        with replacing_folder(link, "The folder") as beside:
            (beside / "file").touch()
        assert link.is_symlink()
        assert os.listdir(tmp_path / place) == ["file"]
    assert not list(tmp_path.glob(".*"))


def test_a_file_of_a_folder_that_could_not_be_written_is_named_where_it_would_have_been(tmp_path):
    def written():
        with replacing_folder(tmp_path / "new", "The folder") as beside:
            (beside / "file").touch()
            with replacing(beside / "file" / "inner", "The figure"):
                pass

    with pytest.raises(LitPWMError) as caught:
        written()
    assert f"The figure could not be written to '{tmp_path / 'new' / 'file' / 'inner'}'" in str(caught.value)
    assert not list(tmp_path.iterdir())
