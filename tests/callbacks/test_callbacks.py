"""The callbacks in real runs: what they save, restore and show."""

import io
import random
import re

import lightning.pytorch as pl
import numpy as np
import pytest
import support
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from rich.console import Console

import callbacks
from datamodules import EpisodeWriter, MultitaskDataModule
from lit_pwm.errors import LitPWMError, NonFiniteLossError
from lit_pwm.models import MLPDynamics
from lit_pwm.pretraining import WorldModelPretraining


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    path = tmp_path_factory.mktemp("store") / "walk.h5"
    rng = np.random.default_rng(0)
    with EpisodeWriter(path, tasks={"walk": (3, 1)}) as writer:
        for _ in range(6):
            action = rng.uniform(-1, 1, (40, 1)).astype(np.float32)
            obs = rng.standard_normal((41, 3)).astype(np.float32)
            writer.append(
                task="walk", obs=obs, action=action, reward=np.abs(action[:, 0]), terminated=False, source="t"
            )
    return path


def module(**options):
    return WorldModelPretraining(
        dynamics=lambda *dims: MLPDynamics(*dims, hidden_dim=16),
        latent_dim=16, encoder_dim=16, reward_dim=16, task_dim=4, **options,
    )  # fmt: skip


def fit(root, store, extra, steps=6, ckpt_path=None, model=None):
    data = MultitaskDataModule(store, horizon=3, batch_size=8, batches_per_epoch=10, seed=0)
    return support.fit(
        model or module(), data, steps, None, ckpt_path, val_check_interval=2, check_val_every_n_epoch=None,
        default_root_dir=root, callbacks=extra, enable_checkpointing=True,
        enable_progress_bar=any(isinstance(c, callbacks.RunProgress) for c in extra),
    )  # fmt: skip


def test_last_checkpoint_is_the_last_state_and_not_the_best(tmp_path, store):
    # A metric that never improves after the first validation.
    class Falling(pl.Callback):
        def on_validation_epoch_end(self, trainer, pl_module):
            pl_module.log("falling", -float(trainer.global_step))

    best = ModelCheckpoint(tmp_path, monitor="falling", mode="max", filename="best")
    last = callbacks.LastCheckpoint()
    trainer = fit(tmp_path, store, [Falling(), best, last], steps=7)
    assert torch.load(best.best_model_path, weights_only=True)["global_step"] == 2
    saved = torch.load(last.best_model_path, weights_only=True)
    assert last.best_model_path.endswith("last.ckpt")
    assert saved["global_step"] == 7  # the update after the last validation is in it
    assert len(list(tmp_path.rglob("last*.ckpt"))) == 1
    for key, value in trainer.lightning_module.state_dict().items():
        assert torch.equal(value, saved["state_dict"][key]), key


def test_interrupting_saves(tmp_path, store):
    class Interrupt(pl.Callback):
        def on_train_batch_end(self, trainer, *_):
            if trainer.global_step == 3:
                raise KeyboardInterrupt

    last = callbacks.LastCheckpoint()
    with pytest.raises(SystemExit):
        fit(tmp_path, store, [Interrupt(), last])
    assert torch.load(last.best_model_path, weights_only=True)["global_step"] == 3


def test_non_finite_loss_leaves_the_batch_and_the_last_good_weights(tmp_path, store):
    class Poison(pl.Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            if trainer.global_step == 3:
                batch["reward"][0, 0] = torch.nan

    with pytest.raises(NonFiniteLossError) as caught:
        fit(tmp_path, store, [Poison(), callbacks.NonFiniteGuard()])
    assert caught.value.exit_code == 3
    assert "non_finite_batch.pt" in str(caught.value)
    saved = torch.load(tmp_path / "non_finite_batch.pt", weights_only=True)
    assert saved["batch"]["reward"].isnan().sum() == 1
    assert saved["global_step"] == 3
    good = torch.load(tmp_path / "last_good.ckpt", weights_only=True)
    assert good["global_step"] == 3
    assert all(value.isfinite().all() for value in good["state_dict"].values())


@pytest.mark.filterwarnings("ignore:Checkpoint directory")
def test_random_states_continue_when_a_run_is_resumed(tmp_path, store):
    drawn = {}

    class Draw(pl.Callback):
        def on_train_batch_end(self, trainer, *_):
            drawn[trainer.global_step] = (random.random(), float(np.random.rand()), float(torch.rand(())))  # noqa: NPY002

    pl.seed_everything(1, verbose=False)
    last = callbacks.LastCheckpoint()
    fit(tmp_path / "a", store, [Draw(), callbacks.RNGState(), last], steps=4)
    fit(tmp_path / "a", store, [Draw(), callbacks.RNGState(), last], steps=8, ckpt_path=last.best_model_path)
    whole = dict(drawn)
    pl.seed_everything(1, verbose=False)
    fit(tmp_path / "b", store, [Draw(), callbacks.RNGState(), callbacks.LastCheckpoint()], steps=8)
    assert drawn == whole


def test_progress_shows_throughput_and_remaining_time(tmp_path, store):
    progress = callbacks.RunProgress(line_seconds=0.0)
    console = Console(record=True, force_terminal=False, width=200, file=io.StringIO())
    progress._console = console  # ty: ignore[invalid-assignment]
    fit(tmp_path, store, [progress], steps=6)
    lines = console.export_text().splitlines()
    shown = [re.search(r"(\d+)/6 updates, [\d.]+ updates/s, [\d,]+ slices/s, .* s remaining", line) for line in lines]
    assert [int(match[1]) for match in shown if match] == [1, 2, 3, 4, 5, 6, 6]
    assert "train/loss=" in lines[-1]


def test_environment_evaluation_refuses_what_it_cannot_do(tmp_path, store):
    with pytest.raises(LitPWMError, match="episodes 0"):
        callbacks.EnvironmentEvaluation(episodes=0)
    with pytest.raises(LitPWMError, match="WorldModelPretraining"):
        fit(tmp_path, store, [callbacks.EnvironmentEvaluation(episodes=1)])


def test_cuda_graphs_refuse_what_they_cannot_speed_up(tmp_path, store):
    with pytest.raises(LitPWMError, match=r"needs a CUDA device, but the Trainer runs on cpu.*accelerator to gpu"):
        fit(tmp_path, store, [callbacks.CUDAGraphs()])
    with pytest.raises(LitPWMError, match="fits a LightningModule"):
        callbacks.CUDAGraphs().on_train_start(pl.Trainer(logger=False), pl.LightningModule())


def test_decoded_errors_are_logged_for_each_task_and_refuse_policies(tmp_path, store):
    trainer = fit(tmp_path, store, [callbacks.DecodedErrors(steps=(1, 2))], steps=2)
    logged = {key: value.item() for key, value in trainer.callback_metrics.items() if "/walk" in key}
    assert {"val/decoded_error_0/walk", "val/decoded_error_1/walk", "val/decoded_error_2/walk"} <= set(logged)
    assert logged["val/reward_error_1/walk"] == pytest.approx(trainer.callback_metrics["val/reward_error_1"].item())
    assert logged["val/decoded_error_1/walk"] == pytest.approx(trainer.callback_metrics["val/decoded_error_1"].item())
    assert 0 <= logged["val/decoded_error_0/walk"] < 1
    with pytest.raises(LitPWMError, match="DecodedErrors measures world models"):
        callbacks.DecodedErrors().on_validation_batch_end(trainer, pl.LightningModule(), None, {}, 0)
