"""A sweep that keeps within its storage."""

import json

import pytest
from support import ROOT

from lit_pwm.cli.main import run


def swept(tmp_path, *options):
    checkpointing = {"class_path": "lightning.pytorch.callbacks.ModelCheckpoint"}
    checkpointing["init_args"] = {
        "every_n_train_steps": 1, "save_top_k": -1, "filename": "at-{step}", "auto_insert_metric_name": False,
    }  # fmt: skip
    fit = ["fit", "--config", "configs/pretrain.yaml", "--config", "configs/world_model/mlp_tiny.yaml"]
    fit += ["--model.latent_dim=16", "--model.encoder_dim=16", "--model.reward_dim=16", "--data.batch_size=4"]
    fit += ["--data.horizon=3", "--trainer.limit_val_batches=1", "--trainer.max_steps=4", "--trainer.accelerator=cpu"]
    fit += ["--trainer.devices=1", "--data.store", str(ROOT / "tests/fixtures_v1/collected.h5"), "--seed_everything"]
    braces = json.dumps([checkpointing]).replace("{", "{{").replace("}", "}}")
    fit += ["{seed}", f"--trainer.callbacks={braces}", "--trainer.default_root_dir", "{folder}"]
    # Goes on from a checkpoint that is neither best nor last.
    further = ["--trainer.max_steps=5" if word == "--trainer.max_steps=4" else word for word in fit] + ["--ckpt_path"]
    further += ["{folder:first}/lightning_logs/version_0/checkpoints/at-2.ckpt"]
    stages = {"first": {"over": ["seed"], "run": fit}, "further": {"over": ["seed"], "run": further}}
    (tmp_path / "s.yaml").write_text(json.dumps({"name": "s", "axes": {"seed": [0]}, "stages": stages}))
    return run(["sweep", str(tmp_path / "s.yaml"), "--out", str(tmp_path / "out"), "--workers", "1", *options])


@pytest.mark.long
def test_a_sweep_keeps_within_its_budget(tmp_path, capsys):
    assert swept(tmp_path, "--storage-budget", "1kB") == 0, "\n".join(p.read_text() for p in tmp_path.rglob("log.txt"))
    left = sorted({path.name for path in (tmp_path / "out").rglob("*.ckpt")})
    assert "last.ckpt" in left
    assert not [name for name in left if name in ("at-1.ckpt", "at-2.ckpt", "at-3.ckpt")]
    assert "more than --storage-budget 1.0 kB" in " ".join(capsys.readouterr().out.split())
    assert {json.loads(path.read_text())["status"] for path in (tmp_path / "out").rglob("cell.json")} == {"finished"}
