"""A world model with one more head and another encoder, named by their classes: trained, saved, loaded, measured."""

from __future__ import annotations

import importlib
from functools import partial

import pytest
import torch
import yaml
from lightning.pytorch import Callback
from torch import nn

from datamodules import MultitaskDataModule
from lit_pwm import WorldModelPretraining
from lit_pwm.checkpoints import load_world_model
from lit_pwm.cli.main import run
from lit_pwm.errors import LitPWMError
from lit_pwm.losses import WorldModelObjective
from lit_pwm.models import Encoder, Head, MLPDynamics, TwoHotReward, WorldModel, WorldModelOptions
from lit_pwm.optim import check_each_parameter_once
from lit_pwm.options.optimizers import WorldModelOptimizer

pytestmark = pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no `val_dataloader`")

OWN = '''
import torch
from lit_pwm.models import Encoder, Head


class SizeHead(Head):
    """Regresses the size of the action."""

    coefficient = 0.5
    lr_scale = 0.1

    def __init__(self, latent_dim, action_dim, task_dim, bias: bool = True):
        super().__init__(latent_dim, action_dim, task_dim)
        self.net = torch.nn.Linear(latent_dim + action_dim + task_dim, 1, bias=bias)

    def forward(self, z, action, embedding):
        return self.net(torch.cat([z, embedding.expand(*z.shape[:-1], -1), action], dim=-1)).squeeze(-1)

    def loss(self, latents, actions, embedding, batch):
        size = self.per_state(batch["action"].square().sum(-1), latents)
        return (self(latents, actions, embedding) - size).square()


class LinearEncoder(Encoder):
    """One map."""

    def __init__(self, obs_dim, task_dim, latent_dim, scale: float = 1.0):
        super().__init__(obs_dim, task_dim, latent_dim)
        self.scale = scale
        self.map = torch.nn.Linear(obs_dim + task_dim, latent_dim)

    def forward(self, obs, embedding):
        return self.scale * self.map(torch.cat([obs, embedding], dim=-1))
'''


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """A user's module on the path."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "own_heads.py").write_text(OWN)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        yield importlib.import_module("own_heads")


def options_of(own, **options):
    parts = {"encoder": partial(own.LinearEncoder, scale=2.0), "heads": {"size": partial(own.SizeHead, bias=False)}}
    return WorldModelOptions(partial(MLPDynamics, hidden_dim=16), 16, 4, **{**parts, **options})


class Groups(Callback):
    def on_train_start(self, trainer, pl_module):
        self.found = {group["name"]: group["lr"] for group in trainer.optimizers[0].param_groups}


def test_one_more_head_is_trained_saved_and_loaded(own, linear_store, fit, tmp_path):
    module, groups = WorldModelPretraining(options_of(own), optimizer={"lr": 1e-2}), Groups()
    trainer = fit(module, MultitaskDataModule(linear_store, horizon=3, batch_size=16), 20, callbacks=[groups])
    assert groups.found["size"] == pytest.approx(1e-3)
    assert list(groups.found) == ["encoder", "dynamics", "reward", "size", "task_embedding"]
    assert {"train/size", "train/reward_cross_entropy", "train/consistency"} <= set(trainer.callback_metrics)
    trainer.save_checkpoint(tmp_path / "own.ckpt")
    loaded = load_world_model(tmp_path / "own.ckpt")
    assert isinstance(loaded.heads["size"], own.SizeHead)
    assert loaded.heads["size"].net.bias is None
    assert (type(loaded.encoder), loaded.encoder.scale) == (own.LinearEncoder, 2.0)
    z, action, embedding = torch.rand(5, 16), torch.rand(5, loaded.action_dim), torch.rand(5, 4)
    torch.testing.assert_close(
        loaded.heads["size"](z, action, embedding), module.world_model.heads["size"](z, action, embedding)
    )
    resumed = WorldModelPretraining(options_of(own))
    assert fit(
        resumed, MultitaskDataModule(linear_store, horizon=3, batch_size=16), 21, ckpt_path=tmp_path / "own.ckpt"
    )
    plain = WorldModelPretraining(options_of(own, heads=None))
    with pytest.raises(LitPWMError, match=r"own\.ckpt.*heads\.size"):
        fit(plain, MultitaskDataModule(linear_store, horizon=3, batch_size=16), 22, ckpt_path=tmp_path / "own.ckpt")


def test_a_config_names_them(own, linear_store, tmp_path, capfd):
    parts = {
        "encoder": {"class_path": "own_heads.LinearEncoder", "init_args": {"scale": 3.0}},
        "heads": {"size": {"class_path": "own_heads.SizeHead"}},
    }
    objective = {"coefficients": {"size": 2.0}}
    model = {"world_model": parts, "objective": {"init_args": objective}}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump({"model": {"init_args": model}}))
    argv = ["fit", "--config", "configs/pretrain.yaml", "--config", "configs/world_model/mlp_tiny.yaml"]
    argv += ["--config", str(tmp_path / "mine.yaml"), "--data.store", str(linear_store), "--data.batch_size", "8"]
    argv += ["--model.world_model.latent_dim", "16", "--model.world_model.reward.hidden_dim", "16"]
    argv += ["--trainer.max_steps", "2", "--trainer.callbacks", "null", "--trainer.accelerator", "cpu"]
    assert run([*argv, "--trainer.default_root_dir", str(tmp_path)]) == 0, capfd.readouterr().err
    (file,) = tmp_path.rglob("last.ckpt")
    loaded = load_world_model(file)
    assert loaded.encoder.scale == 3.0
    assert type(loaded.heads["size"]) is own.SizeHead
    assert torch.load(file, weights_only=True)["lit_pwm"]["objective"]["init_args"]["coefficients"] == {"size": 2.0}


def make_batch():
    return {
        "obs": torch.randn(4, 6, 3), "action": torch.rand(3, 6, 2), "reward": torch.rand(3, 6),
        "task": torch.zeros(6, dtype=torch.int64),
    }  # fmt: skip


def test_the_objective_sums_what_heads_bring(own):
    torch.manual_seed(0)
    model, batch = options_of(own).build({"one": (3, 2)}), make_batch()
    parts = WorldModelObjective(rho=0.5)(model, batch)
    total = 20 * parts["consistency"] + 0.1 * parts["reward"] + 0.5 * parts["size"]
    torch.testing.assert_close(parts["total"], total)
    more = WorldModelObjective(rho=0.5, consistency_coef=1.0, coefficients={"size": 3.0, "reward": 0.0})(model, batch)
    torch.testing.assert_close(more["total"], parts["consistency"] + 3 * parts["size"])
    torch.optim.AdamW(WorldModelObjective().parameter_groups(model, WorldModelOptimizer()))
    optimizer = torch.optim.AdamW(WorldModelObjective().parameter_groups(model, WorldModelOptimizer()))
    check_each_parameter_once(model, optimizer)
    with pytest.raises(LitPWMError, match=r"coefficient of 'sise'.*'size'"):
        WorldModelObjective(coefficients={"sise": 1.0})(model, batch)


class Extra(WorldModelObjective):
    """Other targets and one more term."""

    def targets(self, world_model, batch):
        return torch.zeros_like(super().targets(world_model, batch))

    def extra_terms(self, world_model, batch, noise):
        return {"spread": 7.0 * world_model.encode_logits(batch["obs"][0], batch["task"]).square().mean()}


def test_targets_and_further_terms_are_overridden(own):
    torch.manual_seed(0)
    model, batch = options_of(own).build({"one": (3, 2)}), make_batch()
    plain, parts = WorldModelObjective()(model, batch), Extra()(model, batch)
    assert parts["latent_variance"] == 0
    assert parts["consistency"] != plain["consistency"]
    rest = 20 * parts["consistency"] + 0.1 * parts["reward"] + 0.5 * parts["size"]
    torch.testing.assert_close(parts["total"], rest + parts["spread"])
    parts["spread"].backward()
    assert model.encoder.map.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("name", ["reward", "task_embedding", "a.b", "1"])
def test_a_heads_name_is_its_own(own, name):
    with pytest.raises(LitPWMError, match=f"{name!r}"):
        WorldModel({"one": (3, 2)}, latent_dim=16, heads={name: own.SizeHead})


def test_parts_hold_every_parameter_once(own):
    model = options_of(own).build({"one": (3, 2)})
    held = [id(parameter) for part in model.parts().values() for parameter in part.parameters()]
    assert sorted(held) == sorted(id(parameter) for parameter in model.parameters())
    assert set(model.parts()) == {"task_embedding", "encoder", "dynamics", "reward_head", "size_head"}


def test_kinds_are_kept_apart():
    with pytest.raises(LitPWMError, match="subclass of"):
        WorldModel({"one": (3, 2)}, encoder={"class_path": "lit_pwm.models.TwoHotReward", "init_args": {}})
    assert issubclass(TwoHotReward, Head)
    assert not issubclass(Encoder, Head)
    assert issubclass(Encoder, nn.Module)
