"""What keeps an encoder from collapsing, as the formulation study tried it: an averaged target encoder, and SIGReg."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch

from benchmarks.encoder_steadying import SteadiedObjective, sigreg
from datamodules import MultitaskDataModule
from lit_pwm import WorldModelPretraining
from lit_pwm.checkpoints import load_world_model
from lit_pwm.errors import LitPWMError
from lit_pwm.losses import WorldModelObjective
from lit_pwm.models import MLPDynamics, WorldModel, WorldModelOptions

OPTIONS = WorldModelOptions(
    partial(MLPDynamics, hidden_dim=16),
    latent_dim=32,
    task_dim=4,
    encoder={"class_path": "lit_pwm.models.MLPEncoder", "init_args": {"hidden_dim": 16}},
    reward={"class_path": "lit_pwm.models.TwoHotReward", "init_args": {"hidden_dim": 16}},
)


def make_batch(size=6):
    generator = torch.Generator().manual_seed(0)
    return {
        "obs": torch.randn(4, size, 6, generator=generator),
        "action": torch.rand(3, size, 3, generator=generator),
        "reward": torch.rand(3, size, generator=generator),
        "task": torch.arange(size) % 2,
    }


def directions(dim, count=64):
    generator = torch.Generator().manual_seed(0)
    return torch.nn.functional.normalize(torch.randn(dim, count, generator=generator), dim=0)


def test_sigreg_is_small_for_a_normal_batch_and_known_for_a_collapsed_one():
    torch.manual_seed(0)
    assert sigreg(torch.randn(20_000, 8), directions(8)) < 1e-3
    collapsed = math.sqrt(2 * math.pi) * (1 - math.sqrt(2) + 1 / math.sqrt(3))
    assert sigreg(torch.zeros(100, 8), directions(8)).item() == pytest.approx(collapsed, rel=1e-3)
    for other in (3 * torch.randn(5000, 8), torch.randn(5000, 8) + 1, torch.randn(5000, 8).sign()[:, :1].expand(-1, 8)):
        assert sigreg(other, directions(8)) > 0.02


def test_sigreg_pulls_a_collapsed_batch_apart():
    torch.manual_seed(0)
    x = (0.01 * torch.randn(256, 4)).requires_grad_()
    optimizer = torch.optim.Adam([x], lr=0.05)
    for _ in range(200):
        optimizer.zero_grad()
        sigreg(x, directions(4)).backward()
        optimizer.step()
    assert x.detach().std(0).min() > 0.5


class OtherTargets(WorldModelObjective):
    """With targets that are given."""

    def targets(self, world_model, batch):
        return self.given


def test_targets_of_another_encoder_are_used():
    torch.manual_seed(0)
    model, batch, objective = OPTIONS.build({"one": (6, 3), "two": (4, 2)}), make_batch(), OtherTargets()
    objective.given = model.encode_logits(batch["obs"][1:], batch["task"]).detach()
    own = WorldModelObjective()(model, batch)
    torch.testing.assert_close(objective(model, batch)["total"], own["total"], rtol=0, atol=0)
    objective.given = objective.given + torch.randn(3, 6, 32)
    assert objective(model, batch)["consistency"] > own["consistency"]


def trained(store, fit, updates=2, lr=3e-4, **steadying):
    torch.manual_seed(0)
    optimizer = {"lr": lr, "encoder_lr_scale": 1.0}
    module = WorldModelPretraining(OPTIONS, SteadiedObjective(**steadying), optimizer)
    data = MultitaskDataModule(store, horizon=4, batch_size=32, batches_per_epoch=1000, seed=0)
    return module, fit(module, data, updates)


def test_the_target_encoder_follows_the_trained_one(linear_store, fit, tmp_path):
    module, trainer = trained(linear_store, fit, updates=3, target_encoder_rate=0.25)
    untrained, _ = trained(linear_store, fit, updates=1, target_encoder_rate=0.25, lr=0.0)
    for name, part in module.objective.target_encoder.items():
        for slow, fast, first in zip(
            part.parameters(),
            getattr(module.world_model, name).parameters(),
            getattr(untrained.world_model, name).parameters(),
            strict=True,
        ):
            assert not slow.requires_grad
            if not torch.equal(fast, first):
                distance = (slow - fast).norm() / (first - fast).norm()
                assert 0.3 < distance < 0.95  # between where it began and where the trained one is
    trainer.save_checkpoint(tmp_path / "slow.ckpt")
    saved = torch.load(tmp_path / "slow.ckpt", weights_only=True)["state_dict"]
    assert any(key.startswith("objective.target_encoder.encoder.") for key in saved)
    assert isinstance(load_world_model(tmp_path / "slow.ckpt"), WorldModel)


def test_another_objective_is_not_gone_on_with(linear_store, fit, tmp_path):
    _, trainer = trained(linear_store, fit, target_encoder_rate=0.25)
    trainer.save_checkpoint(tmp_path / "slow.ckpt")
    plain, data = WorldModelPretraining(OPTIONS), MultitaskDataModule(linear_store, horizon=4, batch_size=32)
    with pytest.raises(
        LitPWMError, match=r"benchmarks\.encoder_steadying\.SteadiedObjective.*checkout.*initial_checkp"
    ):
        fit(plain, data, 3, ckpt_path=tmp_path / "slow.ckpt")
    started = WorldModelPretraining(OPTIONS, initial_checkpoint=str(tmp_path / "slow.ckpt"))
    assert fit(started, data, 1).global_step == 1
    loaded = WorldModelPretraining.load_from_checkpoint(tmp_path / "slow.ckpt", objective=WorldModelObjective)
    assert loaded.is_built


def test_the_regularisation_is_trained(linear_store, fit):
    plain, regularised = (trained(linear_store, fit, 40, sigreg_coef=c, lr=3e-3)[0] for c in (0, 5))
    batch = {"obs": torch.randn(256, 4), "task": torch.zeros(256, dtype=torch.int64)}
    scores = [
        sigreg(m.world_model.encode_logits(batch["obs"], batch["task"]).detach(), directions(32)).item()
        for m in (plain, regularised)
    ]
    assert scores[1] < scores[0]
