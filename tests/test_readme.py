"""What the README shows works."""

import re
from pathlib import Path

import pytest
import torch

README = (Path(__file__).resolve().parents[1] / "README.md").read_text()
PYTHON = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


def test_own_data_and_own_component(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    own_data, own_component = PYTHON
    exec(compile(own_data, "own_data", "exec"), {})
    (tmp_path / "my_package.py").write_text(own_component)
    (tmp_path / "mine.yaml").write_text(re.search(r"```yaml\n(.*?)```", README, flags=re.DOTALL).group(1))
    monkeypatch.syspath_prepend(tmp_path)

    from lit_pwm.checkpoints import load_world_model
    from lit_pwm.cli.main import run

    assert run(["data", "check", "mine.h5"]) == 0
    argv = ["fit", "--config", "configs/pretrain.yaml", "--config", "configs/world_model/mlp_tiny.yaml"]
    argv += ["--config", "mine.yaml", "--data.store", "mine.h5", "--data.horizon", "4", "--data.batch_size", "8"]
    assert run([*argv, "--trainer.max_steps", "2", "--trainer.val_check_interval", "2"]) == 0
    dynamics = load_world_model(next(tmp_path.rglob("last.ckpt"))).dynamics
    assert type(dynamics).__name__ == "LinearDynamics"
    assert dynamics.map.bias is None
    assert torch.isfinite(dynamics.map.weight).all()


@pytest.mark.parametrize("name", sorted(set(re.findall(r"configs/[\w/]+\.yaml", README))))
def test_configs_it_names_exist(name):
    from lit_pwm.paths import find_config

    assert find_config(name).is_file()


def test_nothing_is_left_to_fill_in():
    assert "PLACEHOLDER" not in README
