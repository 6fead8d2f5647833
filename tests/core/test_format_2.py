"""Checkpoints of format 2, of commit c5482d9 (tests/fixtures_v2/write_format_2.py), keep options and train on."""

import pytest
import torch
import yaml
from support import ROOT

from lit_pwm import PolicyLearning
from lit_pwm.checkpoints import migration
from lit_pwm.checkpoints.native import read_checkpoint
from lit_pwm.cli.main import run

OLD, STORE = ROOT / "tests" / "fixtures_v2", ROOT / "tests" / "fixtures_v1" / "collected.h5"

pytestmark = [
    pytest.mark.filterwarnings("ignore:Using ModelCheckpoint with manual optimization"),
    pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`, callbacks"),
    pytest.mark.filterwarnings("ignore:The dirpath has changed from"),
]


def test_its_options_are_those_it_was_trained_with():
    module = PolicyLearning.load_from_checkpoint(OLD / "policy.ckpt")
    assert (module.returns.reward_space, module.returns.reward_scale) == ("raw", 0.1)
    assert module.returns_of_each_task
    assert module.makes.tolerance == 0.2


def test_its_settings_are_in_the_new_spelling():
    checkpoint = read_checkpoint(OLD / "policy.ckpt")
    migration.migrate(checkpoint, "made.ckpt")
    settings = checkpoint["lit_pwm_settings"]
    assert settings["model.returns.scale"] == "task"
    assert settings["model.actor_parity.reference.hidden_dims"] == [12, 8]
    assert "model.return_scale" not in settings


def test_its_run_arrives_where_it_did(tmp_path):
    config = yaml.safe_load((OLD / "policy.yaml").read_text())
    config["data"]["init_args"]["store"] = str(STORE)
    (tmp_path / "policy.yaml").write_text(yaml.safe_dump(config))
    argv = ["fit", "--config", str(tmp_path / "policy.yaml"), "--trainer.default_root_dir", str(tmp_path / "run")]
    assert run([*argv, "--ckpt_path", str(OLD / "policy.ckpt")]) == 0
    (last,) = (tmp_path / "run").rglob("last.ckpt")
    now, after = (torch.load(path, weights_only=True) for path in (last, OLD / "after.pt"))
    before = torch.load(OLD / "policy.ckpt", weights_only=True)["state_dict"]
    assert any(not torch.equal(before[key], value) for key, value in after.items())
    for key, value in after.items():
        torch.testing.assert_close(now["state_dict"][key], value, atol=1e-6, rtol=1e-5, msg=key)
