"""What is logged and kept of foreseen ends while a world model trains; nothing where no episode ends."""

from __future__ import annotations

import json

import lightning.pytorch as pl
import numpy as np
import pytest
import support
import torch

import callbacks
from datamodules import EpisodeWriter, MultitaskDataModule
from lit_pwm.errors import LitPWMError
from lit_pwm.experiments.held_out_continuation import held_out_continuation


@pytest.fixture(scope="module")
def falls(tmp_path_factory):
    """A store of a task that ends, and of one that does not."""
    path = tmp_path_factory.mktemp("falls") / "falls.h5"
    rng = np.random.default_rng(0)
    with EpisodeWriter(path, tasks={"fall": (3, 1), "walk": (3, 1)}) as writer:
        for number in range(40):
            for task, length in {"fall": int(rng.integers(3, 30)), "walk": 30}.items():
                action = rng.uniform(-1, 1, (length, 1))
                obs = rng.standard_normal((length + 1, 3)).cumsum(0) / 5
                ended = task == "fall" and number % 4 > 0
                writer.append(
                    task=task, obs=obs, action=action, reward=np.abs(action[:, 0]), terminated=ended, source="t"
                )
    return path


def run(store, folder, pretraining, **options):
    data = MultitaskDataModule(
        str(store), horizon=4, batch_size=16, batches_per_epoch=2, val_batches=3, val_fraction=0.25, **options
    )
    return support.fit(
        pretraining(), data, 2, callbacks=[callbacks.ContinuationScores()], default_root_dir=folder,
        check_val_every_n_epoch=1,
    )  # fmt: skip


def test_scores_are_logged_and_the_curve_is_kept_in_the_runs_folder(falls, tmp_path, pretraining):
    trainer = run(falls, tmp_path, pretraining)
    logged = {key: value.item() for key, value in trainer.callback_metrics.items() if "continuation_b" in key}
    assert set(logged) == {
        f"val/continuation_{key}{task}" for key in ("brier", "brier_base_rate") for task in ("", "/fall")
    }
    content = json.loads((tmp_path / "continuation.json").read_text())
    assert (content["format"], content["updates"], set(content["tasks"])) == (1, 2, {"fall"})
    record = content["tasks"]["fall"]
    assert record["brier"] == pytest.approx(logged["val/continuation_brier/fall"], rel=1e-5)
    data = trainer.datamodule
    mine = (data.table.task == 0) & ~data.held_out
    rate = data.table.terminated[mine].sum() / data.table.length[mine].sum()
    assert record["base_rate"] == pytest.approx(rate)
    assert data.termination_rates() == {"fall": pytest.approx(rate), "walk": 0.0}
    assert record["ends"] > 0
    assert sum(found["count"] for found in record["bins"]) == record["transitions"]


class BreakingOff(pl.Callback):
    """Stops the first validation after a batch."""

    broken = False

    def on_validation_batch_end(self, *_):
        if not self.broken:
            self.broken = True
            raise RuntimeError("broken off")


def test_a_validation_that_was_broken_off_and_a_sanity_check_do_not_count(falls, tmp_path, pretraining):
    record, scores, breaking = tmp_path / "continuation.json", callbacks.ContinuationScores(), BreakingOff()

    def fitted(*others, updates=2, **options):
        data = MultitaskDataModule(str(falls), horizon=4, batch_size=16, val_batches=3)
        support.fit(pretraining(), data, updates, callbacks=[*others], default_root_dir=tmp_path, val_check_interval=2,
                    check_val_every_n_epoch=None, max_epochs=-1, **options)  # fmt: skip
        return json.loads(record.read_text())["tasks"]["fall"] if record.exists() else None

    assert fitted(callbacks.ContinuationScores(), updates=1, num_sanity_val_steps=2) is None
    with pytest.raises(RuntimeError, match="broken off"):
        fitted(scores, breaking)
    again = fitted(scores, breaking)
    assert again == fitted(callbacks.ContinuationScores())


def test_without_terminations_nothing_is_logged_or_written(walks, tmp_path, pretraining):
    trainer = run(walks, tmp_path, pretraining)
    assert not [key for key in trainer.callback_metrics if "continuation" in key]
    assert not (tmp_path / "continuation.json").exists()


def test_a_finished_model_is_measured_on_the_episodes_that_were_held_out(falls, tmp_path, pretraining):
    trainer = run(falls, tmp_path, pretraining)
    model = trainer.lightning_module.world_model.eval()
    found = held_out_continuation(model, [str(falls)], seed=0, horizon=4, batches=4)
    assert set(found) == {"fall"}
    assert 0 < found["fall"]["brier"] < 1
    with torch.no_grad():
        for p in model.continuation_head.parameters():
            p.zero_()
    assert held_out_continuation(model, [str(falls)], 0, 4, 4)["fall"]["brier"] == pytest.approx(0.25)


def test_it_refuses_what_it_cannot_measure():
    with pytest.raises(LitPWMError, match="ContinuationScores measures world models"):
        callbacks.ContinuationScores().on_validation_batch_end(
            pl.Trainer(logger=False), pl.LightningModule(), None, {}, 0
        )
