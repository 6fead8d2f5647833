"""Options of the Trainer that switch off what the command adds by default."""

import pytest
from lightning.pytorch.callbacks import ModelCheckpoint, TQDMProgressBar

import callbacks
from lit_pwm.cli.main import run
from lit_pwm.cli.switches import default_callbacks, without_what_is_off

TINY = [
    "--config", "configs/world_model/mlp_tiny.yaml", "--model.latent_dim", "32", "--model.encoder_dim", "32",
    "--model.reward_dim", "32", "--model.dynamics.hidden_dim", "32", "--data.batch_size", "16", "--data.horizon", "4",
]  # fmt: skip


@pytest.mark.parametrize(
    ("options", "left"),
    [
        (["--trainer.enable_checkpointing", "false"], {"config.yaml", "metrics.csv", "hparams.yaml"}),
        (["--trainer.enable_progress_bar", "false"], {"checkpoints"}),
        (["--trainer.barebones", "true"], set()),
        (["--trainer.logger", "false"], {"checkpoints", "config.yaml"}),
        (["--trainer.logger", "false", "--trainer.enable_checkpointing", "false"], {"config.yaml"}),
        (["--trainer.fast_dev_run", "true"], set()),
        (["--trainer.enable_model_summary", "false", "--trainer.log_every_n_steps", "0"], {"checkpoints"}),
        (["--trainer.limit_val_batches", "0"], {"checkpoints"}),
        (["--trainer.callbacks+=callbacks.LastCheckpoint", "--trainer.callbacks.every_n_updates", "1"], {"last.ckpt"}),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_is_switched_off_is_left_out(store, tmp_path, capsys, options, left):
    argv = ["fit", "--config", "configs/pretrain.yaml", *TINY, "--data.store", str(store)]
    argv += ["--trainer.max_steps", "2", "--trainer.val_check_interval", "2", "--trainer.accelerator", "cpu"]
    assert run([*argv, "--trainer.default_root_dir", str(tmp_path), *options]) == 0, capsys.readouterr().err
    found = {path.name for path in tmp_path.rglob("*")}
    assert left <= found
    if not left:
        assert not {path.name for path in tmp_path.rglob("*.ckpt")}
    if "enable_checkpointing" in " ".join(options):
        assert "checkpoints" not in found


def test_a_callback_of_the_users_own_works_beside_ours():
    own = [ModelCheckpoint(monitor="val/loss"), TQDMProgressBar()]
    kept = without_what_is_off({"callbacks": [*own, *default_callbacks()]})["callbacks"]
    assert kept[:2] == own
    assert not any(isinstance(callback, callbacks.RunProgress) for callback in kept)
    assert any(isinstance(callback, callbacks.LastCheckpoint) for callback in kept)


def test_a_callback_of_a_defaults_class_takes_its_place():
    for own in default_callbacks():
        kinds = [type(callback) for callback in default_callbacks([own])]
        assert type(own) not in kinds
        assert len(kinds) == len(default_callbacks()) - 1


@pytest.mark.parametrize("strategy", ["ddp_spawn", "ddp_fork", "fsdp"])
def test_strategies_that_do_not_train_are_refused(store, tmp_path, capsys, strategy):
    argv = ["fit", "--config", "configs/pretrain.yaml", *TINY, "--data.store", str(store), "--trainer.devices", "2"]
    argv += ["--trainer.default_root_dir", str(tmp_path), "--trainer.accelerator", "cpu"]
    assert run([*argv, "--trainer.strategy", strategy]) == 2
    assert "error:" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
