"""Options that have moved: accepted in Python, in configs and on the command line, with the new spelling shown once."""

from __future__ import annotations

import importlib
import inspect
from functools import partial

import pytest
import torch
import yaml
from support import ROOT

from lit_pwm import PolicyLearning, WorldModelPretraining
from lit_pwm.cli.main import run
from lit_pwm.errors import LitPWMError
from lit_pwm.models import FlowDynamics, MLPDynamics, WorldModel, WorldModelOptions
from lit_pwm.options import renamed
from lit_pwm.options.moves import MOVED

OLD = ROOT / "tests" / "fixtures_v1"


@pytest.fixture
def untold(monkeypatch):
    """As in a process that has said nothing yet."""
    monkeypatch.setattr(renamed, "_told", set())


@pytest.mark.parametrize("path", MOVED)
def test_the_table_names_what_there_is(path):
    module, _, name = path.rpartition(".")
    owner = getattr(importlib.import_module(module), name)
    options = set(inspect.signature(owner).parameters)
    for row in MOVED[path]:
        for old in row.old:
            assert old not in options or row.is_old(old, "noise"), "it has not moved"
        if row.shown:
            for new in row.shown.split(" and ") if isinstance(row.shown, str) else []:
                assert new.partition(".")[0] in options, new


def test_python_takes_both_spellings_and_shows_the_new_one_once(untold, capsys):
    dynamics = partial(MLPDynamics, hidden_dim=8)
    old = WorldModelPretraining(
        dynamics=dynamics, latent_dim=16, encoder_dim=24, encoder_layers=2, reward_dim=8, task_dim=4, lr=1e-3,
        betas=(0.8, 0.9), rho=0.9, consistency_coef=2.0, reward_coef=0.3, clip_norm=5.0,
    )  # fmt: skip
    said = capsys.readouterr().err
    assert "latent_dim of WorldModelPretraining is now world_model.latent_dim" in said
    assert "reward_coef of WorldModelPretraining is now objective.coefficients.reward" in said
    new = WorldModelPretraining(
        world_model=WorldModelOptions(
            dynamics, 16, 4,
            encoder={"class_path": "lit_pwm.models.MLPEncoder", "init_args": {"hidden_dim": 24, "layers": 2}},
            reward={"class_path": "lit_pwm.models.TwoHotReward", "init_args": {"hidden_dim": 8}},
        ),
        objective={
            "class_path": "lit_pwm.losses.WorldModelObjective",
            "init_args": {"rho": 0.9, "consistency_coef": 2.0, "coefficients": {"reward": 0.3}},
        },
        optimizer={"lr": 1e-3, "betas": (0.8, 0.9), "clip_norm": 5.0},
    )  # fmt: skip
    assert capsys.readouterr().err == ""
    assert old.hparams == new.hparams
    assert old.optimizer_settings == new.optimizer_settings
    tasks = {"one": (3, 2)}
    assert old.world_model_options.build(tasks).description() == new.world_model_options.build(tasks).description()
    WorldModelPretraining(latent_dim=16)
    assert capsys.readouterr().err == "", "said once"


def test_other_constructors_do_too():
    model = WorldModel({"one": (3, 2)}, latent_dim=16, encoder_dim=24, encoder_layers=2, reward_dim=8, num_bins=11)
    assert (model.encoder.hidden_dim, model.encoder.layers) == (24, 2)
    assert (model.reward_head.hidden_dim, model.reward_head.num_bins) == (8, 11)
    sampled = {"source": "noise", "noise_dim": 2, "end_weight": 0.0, "energy_weight": 1.0}
    flow = FlowDynamics(16, 2, 4, hidden_dim=8, **sampled)
    assert flow.description()["init_args"]["source"]["init_args"]["dim"] == 2
    policy = PolicyLearning(actor_lr=1e-3, critic_passes=3, final_lr=1e-4)
    assert (policy.actor_optimizer.lr, policy.critic_optimizer.passes) == (1e-3, 3)
    assert policy.actor_optimizer.final_lr == policy.critic_optimizer.final_lr == 1e-4
    scaled = PolicyLearning(reward_space="raw", reward_scale=0.1, return_scale="task", parameter_tolerance=0.1)
    assert scaled.hparams["returns"] == {"reward_space": "raw", "reward_scale": 0.1, "scale": "task"}
    assert scaled.makes.tolerance == 0.1


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: WorldModelPretraining(lr=1e-3, optimizer={"lr": 1e-4}), "'lr' and in its new one"),
        (lambda: WorldModelPretraining(rho=0.5, objective=partial(MLPDynamics)), "'rho' was given beside an object"),
        (lambda: WorldModelPretraining(sigreg_coef=0.1), "'sigreg_coef', given as 0.1, is no more.*SteadiedObjective"),
        (lambda: WorldModelPretraining(latent_dim=12), "WorldModelOptions has latent_dim 12"),
        (lambda: WorldModelPretraining(optimizer={"rate": 1}), "option optimizer has no 'rate'"),
        (lambda: PolicyLearning(world_model={"latentdim": 8}), "option world_model has no 'latentdim'.*latent_dim"),
    ],
)
def test_what_cannot_be_both_is_refused(make, says):
    with pytest.raises(LitPWMError, match=says):
        make()


def test_a_subclass_with_an_option_of_that_name_keeps_it():
    class Own(WorldModelPretraining):
        def __init__(self, lr: float = 1.0, **options):
            super().__init__(optimizer={"lr": 2 * lr}, **options)

    assert Own(lr=3.0).optimizer_settings.lr == 6.0
    assert "lr" in inspect.signature(Own).parameters
    assert "world_model" in inspect.signature(WorldModelPretraining).parameters


def printed(capsys, *argv):
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        run(["fit", *argv, "--data.store", "x.h5", "--print_config"])
    out, err = capsys.readouterr()
    assert stop.value.code in (0, None), err
    return yaml.safe_load(out)["model"], err


PRETRAIN = ("--config", "configs/pretrain.yaml", "--config", "configs/world_model/mlp_tiny.yaml")


def test_the_command_line_and_configs_do_too(untold, capsys, tmp_path):
    (tmp_path / "old.yaml").write_text(
        "model:\n  init_args:\n    latent_dim: 32\n    reward_coef: 0.2\n"
        "    dynamics: {class_path: lit_pwm.models.FlowDynamics, init_args: {substeps: 3, end_weight: 2.0}}\n"
        "    parameter_reference: {class_path: lit_pwm.models.MLPDynamics, init_args: {hidden_dim: 24}}\n"
    )
    (tmp_path / "new.yaml").write_text(
        "model:\n  init_args:\n    world_model:\n      latent_dim: 32\n"
        "      dynamics:\n        class_path: lit_pwm.models.FlowDynamics\n        init_args:\n"
        "          solver: {class_path: lit_pwm.flow.FixedStep, init_args: {substeps: 3}}\n"
        "          loss: {class_path: lit_pwm.models.EndPointError, init_args: {weight: 2.0}}\n"
        "      parameter_reference: {class_path: lit_pwm.models.MLPDynamics, init_args: {hidden_dim: 24}}\n"
        "    objective: {init_args: {coefficients: {reward: 0.2}}}\n"
    )
    old, said = printed(
        capsys, *PRETRAIN, "--config", str(tmp_path / "old.yaml"), "--model.dynamics.hidden_dim", "40",
        "--model.init_args.encoder_dim=16", "--model.encoder_layers", "2", "--model.lr", "1e-4", "--model.betas",
        "[0.5, 0.6]",
    )  # fmt: skip
    new, silence = printed(
        capsys, *PRETRAIN, "--config", str(tmp_path / "new.yaml"), "--model.world_model.dynamics.hidden_dim", "40",
        "--model.world_model.encoder.hidden_dim", "16", "--model.world_model.encoder.layers", "2",
        "--model.optimizer.lr", "1e-4", "--model.optimizer.betas", "[0.5, 0.6]",
    )  # fmt: skip
    assert old == new
    assert old["init_args"]["world_model"]["encoder"]["init_args"] == {"hidden_dim": 16, "layers": 2}
    assert said.count("Old spellings of options were accepted") == 1
    for word in ("lr of WorldModelPretraining is now optimizer.lr", "substeps of FlowDynamics is now solver"):
        assert word in said
    assert "Old spellings" not in silence


def test_one_old_option_changes_a_loss_of_before(capsys):
    config, _ = printed(capsys, "--config", str(OLD / "sampled_flow.yaml"), "--model.dynamics.energy_samples", "3")
    loss = config["init_args"]["world_model"]["dynamics"]["init_args"]["loss"]
    assert loss["class_path"].endswith("EnergyLoss")
    assert loss["init_args"]["samples"] == 3


def test_a_wrong_option_is_still_named_as_it_was_given(capsys):
    assert run(["fit", *PRETRAIN, "--model.latent_dimm", "3", "--data.store", "x.h5"]) == 2
    assert "model.latent_dimm" in capsys.readouterr().err
    assert run(["fit", *PRETRAIN, "--model.latent_dim", "3", "--data.store", "x.h5", "--trainer.max_steps", "1"]) == 2
    assert "latent_dim" in capsys.readouterr().err


def test_the_readmes_component_as_it_was(tmp_path, monkeypatch, linear_store):
    """Its text, and its config, before options were objects and options were remembered."""
    (tmp_path / "my_package_of_before.py").write_text(
        "import torch\nfrom lit_pwm.models import Dynamics\nfrom lit_pwm.models.layers import simnorm\n\n\n"
        "class LinearDynamics(Dynamics):\n"
        "    def __init__(self, latent_dim: int, action_dim: int, task_dim: int, bias: bool = True) -> None:\n"
        "        super().__init__(latent_dim, action_dim, task_dim)\n        self.bias = bias\n"
        "        self.map = torch.nn.Linear(latent_dim + task_dim + action_dim, latent_dim, bias=bias)\n\n"
        "    @property\n    def init_args(self) -> dict:\n        return {'bias': self.bias}\n\n"
        "    def forward(self, z, action, embedding):\n"
        "        return simnorm(self.map(torch.cat([z, embedding, action], dim=-1)))\n"
    )
    (tmp_path / "mine.yaml").write_text(
        "model:\n  init_args:\n"
        "    dynamics: {class_path: my_package_of_before.LinearDynamics, init_args: {bias: false}}\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    argv = ["fit", *PRETRAIN, "--config", str(tmp_path / "mine.yaml"), "--data.store", str(linear_store)]
    argv += ["--data.batch_size", "8", "--trainer.max_steps", "2", "--trainer.callbacks", "null"]
    assert run([*argv, "--trainer.default_root_dir", str(tmp_path), "--trainer.accelerator", "cpu"]) == 0
    from lit_pwm.checkpoints import load_world_model

    (file,) = tmp_path.rglob("last.ckpt")
    model = load_world_model(file)
    assert type(model.dynamics).__name__ == "LinearDynamics"
    assert model.dynamics.map.bias is None
    zs, rewards = model.rollout(
        torch.rand(2, model.latent_dim), torch.rand(3, 2, model.action_dim), torch.tensor([0, 1])
    )
    assert zs.isfinite().all()
    assert rewards.shape == (3, 2)
