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
TUNED = ("finetune.yaml", "finetune_tiny.yaml", "joint.yaml", "joint_tiny.yaml")
RUN = ["--trainer.fast_dev_run", "2", "--data.batch_size", "4", "--data.horizon", "2"]
SECOND = ["--data.second.batch_size", "4", "--data.second.horizon", "2"]


SCHEDULE = "[{class_path: callbacks.FinetuneSchedule}]"


def base_of(config: Path) -> str:
    """The config that this one is stacked on."""
    if config.parts[0] in TUNED:
        return f"{config.stem.partition('_')[0]}.yaml"
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
    if config.parts[0] in TUNED:
        argv += [*SECOND, "--config", "configs/policy/mlp_tiny.yaml", "--trainer.callbacks", SCHEDULE]
        fresh = ["--config", "configs/world_model/mlp_tiny.yaml"]
        argv += fresh if "joint" in config.stem else ["--model.world_model_checkpoint", str(world_model)]
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


@pytest.mark.parametrize("config", SIZE_CONFIGS, ids=str)
def test_joint_training_stacks_with_every_world_model(config, capsys):
    argv = ["fit", "--config", "configs/joint.yaml", "--config", f"configs/{config}"]
    text = printed([*argv, "--config", "configs/policy/mlp_tiny.yaml", "--data.store", "x.h5"], capsys)
    stacked, own = yaml.safe_load(text), yaml.safe_load((ROOT / config).read_text())
    assert stacked["model"]["class_path"] == "lit_pwm.PolicyLearning"
    asked = own["model"]["init_args"]["world_model"]
    found = stacked["model"]["init_args"]["world_model"]
    assert found["latent_dim"] == asked["latent_dim"]
    assert found["dynamics"]["class_path"] == asked["dynamics"]["class_path"]
    (schedule,) = (c for c in stacked["trainer"]["callbacks"] if c["class_path"] == "callbacks.FinetuneSchedule")
    assert schedule["init_args"]["parts"]["all"]["update"] == 0
    assert stacked["data"]["init_args"]["second"]["batch_size"] == 256


@pytest.mark.parametrize("kind", ["mlp_tiny", "flow_tiny", "refinement_tiny", "flow_sampled_tiny"])
def test_joint_training_runs_with_every_kind_of_world_model(kind, store, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    stacked = ("joint", f"world_model/{kind}", "policy/flow_tiny", "joint_tiny")
    argv = [part for name in stacked for part in ("--config", f"configs/{name}.yaml")]
    argv += [*RUN, *SECOND, "--trainer.callbacks", SCHEDULE, "--data.store", str(store)]
    assert run(["fit", *argv]) == 0


@pytest.mark.parametrize("base", ["policy_learning", "finetune"])
def test_a_world_model_stacked_on_a_policy_that_has_one_is_refused(base, store, world_model, tmp_path, capfd):
    argv = ["fit", "--config", f"configs/{base}.yaml", "--config", "configs/world_model/mlp_tiny.yaml"]
    argv += ["--model.world_model_checkpoint", str(world_model), "--data.store", str(store), *RUN]
    assert run([*argv, "--trainer.default_root_dir", str(tmp_path)]) == 2
    said = " ".join(capfd.readouterr().err.split())
    assert "brings one of its own" in said
    assert "--config configs/joint.yaml" in said


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
