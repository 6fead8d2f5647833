"""What the README shows works, and the commands in docs/ are accepted."""

import re
import shlex
import sys

import pytest
import torch
from support import ROOT

README = (ROOT / "README.md").read_text()
PYTHON = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def commands():
    """All command lines of lit-pwm in blocks of code, without what they leave open."""
    found = {}
    for page in PAGES:
        blocks = re.findall(r"^```(\w*)\n(.*?)^```", page.read_text(), flags=re.DOTALL | re.MULTILINE)
        lines = [line for language, block in blocks if not language for line in block.replace("\\\n", " ").splitlines()]
        for line in lines:
            if line.startswith("lit-pwm "):
                words = shlex.split(line, comments=True)
                found[f"{page.name}: {' '.join(words)}"] = [word for word in words[1:] if word != "..."]
    return found


COMMANDS = commands()


def test_there_are_commands_of_each_kind():
    assert {words[0] for words in COMMANDS.values()} >= {"collect", "data", "fit", "evaluate", "sweep", "report"}


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_are_accepted_and_spelt_as_today(command, capsys, monkeypatch):
    from lit_pwm.cli.main import TRAINER_VERBS, build_parser, run, taken_out

    monkeypatch.setattr("lit_pwm.options.renamed._told", set())  # what is told once in a process
    words, _ = taken_out(COMMANDS[command], "--import")  # of modules that a page shows
    if words[0] not in TRAINER_VERBS:
        build_parser().parse_args(words)
        return
    with pytest.raises(SystemExit) as stop:
        run([*words, "--print_config"])
    assert stop.value.code in (0, None)
    assert "Old spellings" not in capsys.readouterr().err


BY_HAND = """
    @property
    def init_args(self) -> dict:
        return {"bias": self.map.bias is not None}
"""
"""What a component of before wrote down itself, and still may."""


@pytest.mark.parametrize("more", ["", BY_HAND], ids=["as shown", "with init_args of its own"])
def test_own_data_and_own_component(more, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    own_data, own_component = PYTHON
    exec(compile(own_data, "own_data", "exec"), {})
    (tmp_path / "my_package.py").write_text(own_component + more)
    sys.modules.pop("my_package", None)
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
    assert dynamics.init_args == {"bias": False}
    assert torch.isfinite(dynamics.map.weight).all()


@pytest.mark.parametrize("name", sorted(set(re.findall(r"configs/[\w/]+\.yaml", README))))
def test_configs_it_names_exist(name):
    from lit_pwm.paths import find_config

    assert find_config(name).is_file()


def test_nothing_is_left_to_fill_in():
    assert "PLACEHOLDER" not in README
