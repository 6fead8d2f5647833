"""Runs that are told to stop at any place, and what is left of them; the signal is a real one, to this process."""

import csv
import os
import signal
import subprocess
import sys
import time

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

import callbacks
from datamodules import MultitaskDataModule
from lit_pwm.errors import RunStopped
from lit_pwm.runtime import run_signals

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*exists and is not empty"),
    pytest.mark.filterwarnings("ignore:Total length of `list`"),
]
UPDATES, EVALUATE = 11, 3
PLACES = ["batch_start", "batch_end", "val_start", "val_first", "val_last", "val_end", "epoch_end", "saving"]


class Tell(pl.Callback):
    """Sends this process a signal at one place."""

    def __init__(self, place, update, signum=signal.SIGTERM):
        self.place, self.update, self.signum = place, update, signum

    def _at(self, place, trainer):
        if (place, trainer.global_step) == (self.place, self.update):
            signal.raise_signal(self.signum)

    def on_train_start(self, trainer, *_):
        self._at("train_start", trainer)

    def on_train_batch_start(self, trainer, *_):
        self._at("batch_start", trainer)

    def on_train_batch_end(self, trainer, *_):
        self._at("batch_end", trainer)

    def on_train_epoch_end(self, trainer, *_):
        self._at("epoch_end", trainer)

    def on_validation_start(self, trainer, *_):
        self._at("val_start", trainer)

    def on_validation_batch_end(self, trainer, pl_module, outputs, batch, batch_idx, *_):
        self._at(["val_first", "val_last"][batch_idx], trainer)

    def on_validation_end(self, trainer, *_):
        self._at("val_end", trainer)

    def on_save_checkpoint(self, trainer, *_):
        self._at("saving", trainer)


class Draw(pl.Callback):
    """Uses the global generator in updates and in validations, as a component of a user may."""

    def on_train_batch_end(self, trainer, pl_module, *_):
        pl_module.log("draw", torch.rand(()), batch_size=1)

    def on_validation_batch_end(self, trainer, pl_module, *_):
        pl_module.log("val/draw", torch.rand(()), batch_size=1)


@pytest.fixture(scope="session")
def leg(run, walks):
    """One part of a run: returns its code, the rows of its log, its last checkpoint and its trainer."""

    def go(module, root, *extra, resume=None, val_fraction=0.2, monitor="val/loss", mode="min", epoch=4, **options):
        data = MultitaskDataModule(
            walks, horizon=3, val_horizon=3, batch_size=8, batches_per_epoch=epoch, val_batches=2,
            val_fraction=val_fraction, seed=0,
        )  # fmt: skip
        last = callbacks.LastCheckpoint()
        best = ModelCheckpoint(monitor=monitor, mode=mode, filename="best-{step}")
        keepers = [callbacks.RNGState(), callbacks.KeepBest(), callbacks.StopOnSignals(), best, last]
        settings = {"val_check_interval": EVALUATE, "log_every_n_steps": 2, "enable_checkpointing": True}
        code = 0
        try:
            run(module, root, [*extra, Draw(), *keepers], UPDATES, data=data, ckpt_path=resume, **settings | options)
        except RunStopped as stop:
            code = stop.code
        file = root / "metrics.csv"
        rows = list(csv.DictReader(file.read_text().splitlines())) if file.exists() else []
        found = root / "checkpoints" / "last.ckpt"
        return code, [{k: v for k, v in row.items() if v} for row in rows], found if found.exists() else None, best

    return go


def equal_weights(one, other):
    one, other = (torch.load(path, weights_only=True) for path in (one, other))
    assert one["global_step"] == other["global_step"] == UPDATES
    return all(torch.equal(value, other["state_dict"][key]) for key, value in one["state_dict"].items())


@pytest.fixture(scope="session")
def undisturbed(pretraining, leg, tmp_path_factory):
    return leg(pretraining(), tmp_path_factory.mktemp("undisturbed"))


def continues_as_undisturbed(pretraining, leg, undisturbed, root, place, update):
    code, rows, last, _ = leg(pretraining(), root / "a", Tell(place, update))
    if code == 0:  # there is no such place after this update, or nothing came after it
        return
    assert code == 143
    code, more, end, best = leg(pretraining(), root / "b", resume=last)
    assert code == 0
    assert rows + more == undisturbed[1]
    assert equal_weights(end or last, undisturbed[2])
    assert float(best.best_model_score) == float(undisturbed[3].best_model_score)


@pytest.mark.parametrize(
    ("place", "update"),
    [
        ("batch_start", 4),
        ("batch_start", 7),
        ("val_start", 6),
        ("val_first", 9),
        ("val_last", 3),
        ("saving", 6),
        ("epoch_end", 8),
    ],
)
def test_stopped_and_resumed_it_is_the_undisturbed_run(pretraining, leg, undisturbed, tmp_path, place, update):
    continues_as_undisturbed(pretraining, leg, undisturbed, tmp_path, place, update)


@pytest.mark.long
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("update", range(2, UPDATES + 1))
def test_stopped_anywhere_and_resumed_it_is_the_undisturbed_run(pretraining, leg, undisturbed, tmp_path, place, update):
    continues_as_undisturbed(pretraining, leg, undisturbed, tmp_path, place, update)


def test_a_stopped_and_resumed_policy_is_the_undisturbed_one(policy_learning, world_model_files, leg, tmp_path):
    def make():
        return policy_learning(world_model_files["mlp"], "flow")

    options = {"monitor": "val/imagined_reward", "mode": "max"}
    whole = leg(make(), tmp_path / "whole", **options)
    code, rows, last, _ = leg(make(), tmp_path / "a", Tell("batch_start", 4), **options)
    assert code == 143
    code, more, middle, _ = leg(make(), tmp_path / "b", Tell("val_first", 9), resume=last, **options)
    assert code == 143
    code, rest, end, _ = leg(make(), tmp_path / "c", resume=middle, **options)
    assert code == 0
    assert rows + more + rest == whole[1]
    assert equal_weights(end, whole[2])


def test_an_evaluation_after_the_last_update_is_done_again(pretraining, leg, tmp_path):
    options = {"val_check_interval": UPDATES}
    whole = leg(pretraining(), tmp_path / "whole", **options)
    code, rows, last, _ = leg(pretraining(), tmp_path / "a", Tell("val_first", UPDATES), **options)
    assert code == 143
    assert not any("val/loss" in row for row in rows)
    code, more, end, _ = leg(pretraining(), tmp_path / "b", resume=last, **options)
    assert code == 0
    assert rows + more == whole[1]
    assert equal_weights(end or last, whole[2])


def test_a_run_whose_epochs_have_one_update_stops_too(pretraining, leg, tmp_path):
    whole = leg(pretraining(), tmp_path / "whole", epoch=1)
    code, rows, last, _ = leg(pretraining(), tmp_path / "a", Tell("batch_start", 4), epoch=1)
    assert code == 143
    assert torch.load(last, weights_only=True)["global_step"] == 5
    code, more, end, _ = leg(pretraining(), tmp_path / "b", resume=last, epoch=1)
    assert code == 0
    assert rows + more == whole[1]
    assert equal_weights(end, whole[2])


def test_a_job_is_requeued_once_and_deaf_to_what_its_scheduler_sends_then(pretraining, leg, tmp_path, monkeypatch):
    seen, before = [], signal.getsignal(signal.SIGTERM)

    class Slurm(pl.Callback):
        def on_train_start(self, *_):
            run_signals.requeue_by(signal.SIGUSR1)

    monkeypatch.setattr("callbacks.stop_on_signals.requeue", lambda: seen.append(signal.getsignal(signal.SIGTERM)) or 0)
    try:
        code, _, last, _ = leg(pretraining(), tmp_path, Slurm(), Tell("batch_start", 2, signal.SIGUSR1))
    finally:
        signal.signal(signal.SIGTERM, before)
    assert (code, seen) == (0, [signal.SIG_IGN])
    assert torch.load(last, weights_only=True)["global_step"] == 3


def test_before_the_first_update_nothing_is_saved(pretraining, leg, tmp_path):
    code, _, last, _ = leg(pretraining(), tmp_path, Tell("train_start", 0))
    assert code == 143
    assert last is None


@pytest.mark.parametrize(("signum", "expected"), [(signal.SIGINT, 130), (signal.SIGHUP, 129)])
def test_the_code_says_which_signal(pretraining, leg, tmp_path, signum, expected):
    code, _, last, _ = leg(pretraining(), tmp_path, Tell("batch_start", 2, signum))
    assert code == expected
    assert torch.load(last, weights_only=True)["global_step"] == 3


def test_signals_are_given_back(pretraining, leg, tmp_path):
    before = [signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    leg(pretraining(), tmp_path / "a", Tell("batch_start", 2))
    leg(pretraining(), tmp_path / "b")
    assert [signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)] == before
    assert run_signals.asked() is None


def test_a_half_made_update_is_never_saved(pretraining, run, walks, tmp_path):
    """Without StopOnSignals, Ctrl-C comes in the middle of an update."""

    class Interrupt(pl.Callback):
        def on_after_backward(self, trainer, *_):
            if trainer.global_step == 5:
                raise KeyboardInterrupt

    last = callbacks.LastCheckpoint(every_n_updates=2)
    with pytest.raises(SystemExit):
        run(pretraining(), tmp_path, [Interrupt(), last], 8, enable_checkpointing=True)
    assert torch.load(last.best_model_path, weights_only=True)["global_step"] == 4


@pytest.mark.parametrize("options", [{}, {"every_n_updates": 2}, {"every_minutes": 1e-9}], ids=str)
def test_without_validation_it_is_saved_all_the_same(pretraining, leg, run, walks, tmp_path, options):
    seen = []

    class Look(pl.Callback):
        def on_train_batch_start(self, trainer, *_):
            found = list(tmp_path.rglob("last.ckpt"))
            seen.append(torch.load(found[0], weights_only=True)["global_step"] if found else 0)

    data = MultitaskDataModule(walks, horizon=3, batch_size=8, batches_per_epoch=4, val_fraction=0)
    last = callbacks.LastCheckpoint(**options)
    run(pretraining(), tmp_path, [Look(), last], 7, data=data, enable_checkpointing=True, val_check_interval=3)
    every = {"{}": 3, "{'every_n_updates': 2}": 2, "{'every_minutes': 1e-09}": 1}[str(options)]
    assert seen == [step // every * every for step in range(7)]


def test_a_second_signal_ends_the_process_at_once(tmp_path):
    script = """
import os, signal, sys, time
from lit_pwm.runtime import run_signals
from lit_pwm.runtime.atomic import replacing_part
with run_signals.catching_signals():
    run_signals.defer(True)
    with replacing_part(sys.argv[1], "The file") as beside:
        beside.write_text("half")
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)  # as `timeout` does: to the process, and to its group
        time.sleep(0.5)
        print("goes on", flush=True)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)
"""
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "f.ckpt")], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (143, "goes on\n"), done.stderr
    assert time.monotonic() - began < 30
    assert os.listdir(tmp_path) == []
