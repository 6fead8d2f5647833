"""Every config in the tree is parsed, printed, parsed again to the same text, and run for a few steps."""

import importlib
import inspect
from pathlib import Path

import pytest
import yaml

from lit_pwm.cli.main import run
from lit_pwm.models.sizes import SIZES, world_model_size
from lit_pwm.paths import config_root

ROOT = config_root()
# Sweep files are no configs of runs: tests/experiments/test_sweep_plan.py has them.
ALL = sorted(path.relative_to(ROOT) for path in ROOT.rglob("*.yaml") if path.parent.name != "sweeps")
POLICY = (
    "policy",
    "policy_learning.yaml",
    "policy_learning_tiny.yaml",
    "policy_learning_offline.yaml",
    "pwm_exact.yaml",
)
RUN = ["--trainer.fast_dev_run", "2", "--data.batch_size", "4", "--data.horizon", "2"]


def base_of(config: Path) -> str:
    """The config that this one is stacked on."""
    is_policy = config.parts[0] in POLICY or config == Path("demo/policy.yaml")
    return "policy_learning.yaml" if is_policy else "pretrain.yaml"


def stack(config: Path) -> list[str]:
    names = dict.fromkeys([base_of(config), str(config)])
    return [part for name in names for part in ("--config", f"configs/{name}")]


def test_there_are_configs_of_each_kind():
    assert {path.parts[0] for path in ALL} >= {"pretrain.yaml", "policy_learning.yaml", "world_model", "policy", "data"}


def printed(argv, capsys) -> str:
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        run([*argv, "--print_config"])
    assert stop.value.code in (0, None)
    said = capsys.readouterr()
    assert "Old spellings" not in said.err
    return said.out


@pytest.fixture(autouse=True)
def nothing_told_yet(monkeypatch):
    """Old spellings are told of once in a process."""
    monkeypatch.setattr("lit_pwm.options.renamed._told", set())


@pytest.mark.parametrize("config", ALL, ids=str)
def test_print_config_round_trips(config, capsys, tmp_path):
    first = printed(["fit", *stack(config), "--data.store", "x.h5"], capsys)
    again = tmp_path / "printed.yaml"
    again.write_text(first)
    assert printed(["fit", "--config", str(again)], capsys) == first
    assert "class_path" in first


@pytest.mark.parametrize("config", ALL, ids=str)
def test_runs_for_a_few_steps(config, store, world_model, tmp_path, monkeypatch):
    if config.parts[0] == "trainer" and config.stem in ("ddp", "gpu", "h100", "slurm"):
        pytest.skip("needs a GPU, or more than one process: run in a test of its own")
    monkeypatch.chdir(tmp_path)
    argv = ["fit", *stack(config), "--data.store", str(store), "--data.tasks", "[cartpole-swingup]", *RUN]
    if base_of(config) == "policy_learning.yaml":
        argv += ["--model.world_model_checkpoint", str(world_model), "--trainer.callbacks", "null"]
    assert run(argv) == 0
    assert list(tmp_path.iterdir()) == []  # fast_dev_run leaves nothing


SIZE_CONFIGS = [c for c in ALL if c.parts[0] == "world_model"]


@pytest.mark.parametrize("config", SIZE_CONFIGS, ids=str)
def test_a_size_config_has_the_widths_of_its_size_and_names_no_module(config):
    kind, _, name = config.stem.rpartition("_")
    content, size = yaml.safe_load((ROOT / config).read_text()), world_model_size(name)
    assert set(content) == {"model"}
    assert set(content["model"]) == {"init_args"}, "it would not stack with both modules"
    parts = content["model"]["init_args"].pop("world_model")
    assert content["model"]["init_args"] == {}
    reference = parts["dynamics"] if kind == "mlp" else parts["parameter_reference"]
    assert reference["class_path"].endswith("MLPDynamics")
    assert (parts["latent_dim"], parts["task_dim"]) == (size.latent_dim, size.task_dim)
    assert parts["encoder"]["init_args"] == {"hidden_dim": size.encoder_dim, "layers": size.encoder_layers}
    assert (reference["init_args"]["hidden_dim"], reference["init_args"]["layers"]) == (size.dynamics_dim, 2)
    assert parts["reward"]["init_args"]["hidden_dim"] == size.reward_dim


def test_every_size_has_a_config_of_each_kind():
    names = {config.stem for config in SIZE_CONFIGS}
    assert names >= {f"{kind}_{size}" for kind in ("mlp", "refinement", "flow") for size in SIZES}


def test_size_configs_stack_with_both_modules(capsys):
    stacked = {}
    for base in ("pretrain", "policy_learning"):
        argv = ["fit", "--config", f"configs/{base}.yaml", "--config", "configs/world_model/flow_5m.yaml"]
        text = printed([*argv, "--data.store", "x.h5", "--model.world_model.latent_dim", "256"], capsys)
        stacked[base] = yaml.safe_load(text)["model"]["init_args"]["world_model"]
    assert stacked["pretrain"] == stacked["policy_learning"]
    assert stacked["pretrain"]["latent_dim"] == 256


def whole(part):
    """A component's class and all its options, those left at their defaults too, and its parts likewise."""
    if isinstance(part, type):
        part = {"class_path": f"{part.__module__}.{part.__qualname__}"}
    if not isinstance(part, dict) or "class_path" not in part:
        return part
    module, _, name = part["class_path"].rpartition(".")
    kind = getattr(importlib.import_module(module), name)
    options = {
        option: parameter.default
        for option, parameter in inspect.signature(kind).parameters.items()
        if parameter.default is not inspect.Parameter.empty
    } | part.get("init_args", {})
    return kind, {option: whole(value) for option, value in options.items()}


@pytest.mark.parametrize("config", SIZE_CONFIGS, ids=str)
def test_a_swapped_component_keeps_its_own_defaults(config, capsys):
    """jsonargparse hands what it knows of one class, defaults too, on to the class that takes its place."""
    text = printed(["fit", *stack(config), "--data.store", "x.h5"], capsys)
    found = yaml.safe_load(text)["model"]["init_args"]["world_model"]["dynamics"]
    own = yaml.safe_load((ROOT / config).read_text())["model"]["init_args"]["world_model"]["dynamics"]
    assert whole(found) == whole(own)
