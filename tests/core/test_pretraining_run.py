"""World-model pre-training by a real Trainer on a real store of a linear system."""

from __future__ import annotations

from functools import partial
from itertools import pairwise

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.plugins.precision import MixedPrecision

from datamodules import EpisodeWriter, MultitaskDataModule
from lit_pwm import WorldModelPretraining
from lit_pwm.checkpoints import load_world_model
from lit_pwm.errors import LitPWMError, NonFiniteLossError
from lit_pwm.losses import WorldModelObjective
from lit_pwm.models import MLPDynamics, WorldModel
from lit_pwm.models.layers import constrain_
from lit_pwm.options.optimizers import WorldModelOptimizer

# The first is Lightning's advice to those who want the weights from before the update, which we do not.
pytestmark = [
    pytest.mark.filterwarnings("ignore:Using ModelCheckpoint with manual optimization"),
    pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`, callbacks"),
    pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no `val_dataloader`"),
]

WIDTHS = {"latent_dim": 32, "encoder_dim": 32, "reward_dim": 32, "task_dim": 4}
TINY = {**WIDTHS, "dynamics": partial(MLPDynamics, hidden_dim=32)}


def data_of(store, **options):
    return MultitaskDataModule(store, **{"horizon": 4, "batch_size": 32, "batches_per_epoch": 1000, **options})


def weights(module):
    return {key: value.clone() for key, value in module.world_model.state_dict().items()}


def assert_same(ours, theirs):
    assert ours.keys() == theirs.keys()
    for key, value in ours.items():
        assert torch.equal(value, theirs[key]), key


class Losses(Callback):
    """Collects the training loss of every update."""

    def __init__(self):
        self.values = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.values.append(trainer.callback_metrics["train/loss"].item())


def test_beats_the_copy_last_predictor_tenfold_on_a_linear_system(linear_store, fit):
    module = WorldModelPretraining(
        dynamics=partial(MLPDynamics, hidden_dim=96),
        latent_dim=96,
        encoder_dim=96,
        reward_dim=64,
        task_dim=4,
        lr=3e-3,
        encoder_lr_scale=1.0,
        final_lr_fraction=0.02,
    )
    losses = Losses()
    data = data_of(linear_store, batch_size=128, horizon=6, val_horizon=16)
    trainer = fit(module, data, 400, callbacks=[losses])
    assert trainer.global_step == len(losses.values) == 400
    assert torch.tensor(losses.values).isfinite().all()
    assert sum(losses.values[-20:]) < 0.5 * sum(losses.values[:20])
    (scores,) = trainer.validate(module, datamodule=data, verbose=False)
    for k in (1, 4, 16):
        assert 10 * scores[f"val/latent_error_{k}"] < scores[f"val/latent_error_copy_last_{k}"]
        assert scores[f"val/latent_error_{k}"] < 0.1  # the mean predictor's is 1
        assert scores[f"val/latent_variance_{k}"] > 1e-4
    assert scores["val/reward_explained_variance_4"] > 0.9


def test_the_first_update_is_adamw_on_the_loss_with_the_groups_and_the_clip(linear_store, fit):
    class Snapshot(Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            self.batch, self.before = batch, weights(pl_module)
            self.model = WorldModel.from_description(pl_module.world_model.description())

    snapshot = Snapshot()
    module = WorldModelPretraining(**TINY, lr=1e-3, encoder_lr_scale=0.5, weight_decay=0.1, rho=0.8, clip_norm=1e-3)
    fit(module, data_of(linear_store), 1, callbacks=[snapshot])
    model = snapshot.model
    model.load_state_dict(snapshot.before)
    optimizer = torch.optim.AdamW(
        WorldModelObjective().parameter_groups(model, WorldModelOptimizer(1e-3, 0.5)),
        betas=(0.9, 0.999),
        weight_decay=0.1,
    )
    WorldModelObjective(rho=0.8)(model, snapshot.batch)["total"].backward()
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1e-3)
    assert norm > 1e-2
    optimizer.step()
    for key, value in model.state_dict().items():
        torch.testing.assert_close(module.world_model.state_dict()[key], value, atol=2e-6, rtol=1e-5)
    assert not torch.equal(module.world_model.encoder.net[0].weight, snapshot.before["encoder.net.0.weight"])


def test_an_update_is_a_function_that_needs_no_trainer():
    torch.manual_seed(0)
    module = WorldModelPretraining(**TINY, clip_norm=0.5)
    module._build(module.world_model_options.build({"one": (3, 2)}))
    batch = {"obs": torch.randn(4, 8, 3), "action": torch.rand(3, 8, 2), "reward": torch.rand(3, 8)}
    batch["task"] = torch.zeros(8, dtype=torch.int64)
    model = WorldModel.from_description(module.world_model.description())
    model.load_state_dict(module.world_model.state_dict())
    theirs, ours = (
        torch.optim.AdamW(WorldModelObjective().parameter_groups(one, WorldModelOptimizer()), fused=True)
        for one in (model, module.world_model)
    )
    module.prepare_updates(ours)
    rates = {"encoder": 1e-3, "dynamics": 2e-3, "reward": 3e-3, "task_embedding": 4e-3}
    found = module.update(batch, {}, rates)
    loss = WorldModelObjective()(model, batch)["total"]
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
    for group in theirs.param_groups:
        group["lr"] = rates[group["name"]]
    theirs.step()
    constrain_(model)
    assert (found["total"], found["gradient_norm"]) == (loss, norm)
    assert not any(part.requires_grad for part in found.values())
    assert_same(weights(module), dict(model.state_dict()))

    before, moments = (
        weights(module),
        {k: v.clone() for k, v in ours.state[module.world_model.encoder.net[0].weight].items()},
    )
    bad = {**batch, "reward": batch["reward"] * torch.nan}
    assert module.update(bad, {}, rates)["total"].isnan()
    assert_same(weights(module), before)
    for name, value in moments.items():
        assert torch.equal(ours.state[module.world_model.encoder.net[0].weight][name], value), name
    module.update(batch, {}, rates)
    assert not torch.equal(weights(module)["encoder.net.0.weight"], before["encoder.net.0.weight"])


def test_the_same_seed_repeats_and_another_does_not(linear_store, fit):
    results = []
    for seed in (1, 1, 2):
        module = WorldModelPretraining(**TINY)
        fit(module, data_of(linear_store, seed=0), 3, seed=seed)
        results.append(weights(module))
    assert_same(results[0], results[1])
    assert not torch.equal(results[0]["encoder.net.0.weight"], results[2]["encoder.net.0.weight"])


def test_resuming_gives_the_bits_of_an_uninterrupted_run(linear_store, fit, checkpoint_every, tmp_path):
    options = {**TINY, "warmup_steps": 3, "final_lr_fraction": 0.1}
    data = {"seed": 5, "batches_per_epoch": 6}  # the run crosses epochs, and the checkpoint lies inside one
    whole = WorldModelPretraining(**options)
    fit(whole, data_of(linear_store, **data), 15, callbacks=[checkpoint_every(4)], enable_checkpointing=True)
    for step in (4, 12):
        resumed = WorldModelPretraining(**options)
        trainer = fit(resumed, data_of(linear_store, **data), 15, seed=999, ckpt_path=tmp_path / f"step={step}.ckpt")
        assert trainer.global_step == 15
        assert_same(weights(resumed), weights(whole))


def test_a_resumed_run_obeys_its_own_learning_rate(linear_store, fit, checkpoint_every, tmp_path):
    fit(
        WorldModelPretraining(**TINY, lr=1e-3),
        data_of(linear_store),
        2,
        callbacks=[checkpoint_every(2)],
        enable_checkpointing=True,
    )
    resumed = WorldModelPretraining(**TINY, lr=2e-4)
    trainer = fit(resumed, data_of(linear_store), 3, ckpt_path=tmp_path / "step=2.ckpt")
    rates = {group["name"]: group["lr"] for group in trainer.optimizers[0].param_groups}
    assert rates["dynamics"] == pytest.approx(2e-4)
    assert rates["encoder"] == pytest.approx(0.6e-4)


def test_the_checkpoint_rebuilds_the_model_alone(linear_store, fit, tmp_path):
    module = WorldModelPretraining(**TINY)
    trainer = fit(module, data_of(linear_store), 2)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    model = load_world_model(tmp_path / "last.ckpt")
    assert model.task_names == ("spring", "spin")
    assert_same(dict(model.state_dict()), weights(module))
    assert (model.obs_std != 1).any(), "standardised by the data, and saved with the model"
    again = WorldModelPretraining.load_from_checkpoint(tmp_path / "last.ckpt")
    assert_same(weights(again), weights(module))
    assert again.world_model.dynamics.init_args["hidden_dim"] == 32

    # It brings its own statistics, whatever data it goes on with.
    continued = WorldModelPretraining(initial_checkpoint=str(tmp_path / "last.ckpt"), lr=0.0)
    fit(continued, data_of(linear_store, tasks=["spin"], val_fraction=0.5), 1)
    assert_same(weights(continued), weights(module))


def test_a_run_that_began_with_a_checkpoint_is_resumed_without_it_again_and_again(linear_store, fit, tmp_path):
    first, files = tmp_path / "first.ckpt", [tmp_path / f"{number}.ckpt" for number in range(3)]
    fit(WorldModelPretraining(**TINY), data_of(linear_store), 2).save_checkpoint(first)
    fit(WorldModelPretraining(initial_checkpoint=str(first)), data_of(linear_store), 2).save_checkpoint(files[0])
    first.unlink()
    for updates, (before, after) in enumerate(pairwise(files), start=3):
        trainer = fit(WorldModelPretraining(), data_of(linear_store), updates, ckpt_path=before)
        trainer.save_checkpoint(after)
        assert trainer.global_step == updates
        assert load_world_model(after).latent_dim == TINY["latent_dim"]


@pytest.mark.parametrize("now", ["missing", "damaged", "of another size", "a folder"])
def test_what_a_run_began_with_is_not_opened_when_it_goes_on(linear_store, fit, tmp_path, now):
    first, file = tmp_path / "first.ckpt", tmp_path / "run.ckpt"
    fit(WorldModelPretraining(**TINY), data_of(linear_store), 2).save_checkpoint(first)
    fit(WorldModelPretraining(initial_checkpoint=str(first)), data_of(linear_store), 2).save_checkpoint(file)
    first.unlink()
    if now == "damaged":
        first.write_bytes(b"nothing of the kind")
    elif now == "a folder":
        first.mkdir()
    elif now == "of another size":
        fit(WorldModelPretraining(**{**TINY, "latent_dim": 64}), data_of(linear_store), 1).save_checkpoint(first)
    resumed = WorldModelPretraining(initial_checkpoint=str(first))
    assert fit(resumed, data_of(linear_store), 3, ckpt_path=file).global_step == 3
    assert resumed.world_model.latent_dim == TINY["latent_dim"]
    if now != "of another size":
        with pytest.raises(LitPWMError, match=r"first\.ckpt"):
            fit(WorldModelPretraining(initial_checkpoint=str(first)), data_of(linear_store), 1)


def test_networks_are_built_once_and_from_the_checkpoint(linear_store, fit, tmp_path, monkeypatch):
    file, built = tmp_path / "run.ckpt", []
    fit(WorldModelPretraining(**TINY), data_of(linear_store), 2).save_checkpoint(file)
    own = WorldModelPretraining._build
    monkeypatch.setattr(WorldModelPretraining, "_build", lambda self, model: (built.append(model), own(self, model))[1])
    resumed = WorldModelPretraining(**TINY)
    trainer = fit(resumed, data_of(linear_store), 3, ckpt_path=file)
    assert [id(model) for model in built] == [id(resumed.world_model)]
    trainer.fit_loop.epoch_loop.max_steps = 4
    trainer.fit(resumed, datamodule=data_of(linear_store))  # goes on with what is there, without the file
    assert len(built) == 1
    assert trainer.global_step == 4


def test_observation_statistics_are_those_of_the_data_unless_switched_off(linear_store, fit):
    plain = WorldModelPretraining(**TINY, standardise_observations=False)
    fit(plain, data_of(linear_store), 1)
    assert (plain.world_model.obs_std == 1).all()
    module, data = WorldModelPretraining(**TINY), data_of(linear_store)
    fit(module, data, 1)
    for name, (mean, std) in data.observation_statistics().items():
        row, width = module.world_model.task_names.index(name), len(mean)
        torch.testing.assert_close(module.world_model.obs_mean[row, :width], torch.tensor(mean, dtype=torch.float32))
        torch.testing.assert_close(module.world_model.obs_std[row, :width], torch.tensor(std, dtype=torch.float32))


def write_store(path, tasks, reward=0.5, scale=1.0, terminated=False):
    generator = torch.Generator().manual_seed(0)
    with EpisodeWriter(path, tasks=tasks) as writer:
        for _ in range(8):
            for name, (obs_dim, action_dim) in tasks.items():
                obs = scale * torch.randn(21, obs_dim, generator=generator).clamp(-1, 1)
                action = torch.rand(20, action_dim, generator=generator)
                writer.append(
                    task=name,
                    obs=obs.numpy(),
                    action=action.numpy(),
                    reward=[reward] * 20,
                    terminated=terminated,
                    source="made",
                )
    return path


def test_a_model_of_thirty_tasks_trains_the_embeddings_of_the_tasks_in_the_store(tmp_path, fit):
    store = write_store(tmp_path / "three.h5", {"cup-catch": (8, 2), "walker-walk": (24, 6), "reacher-easy": (6, 2)})
    module = WorldModelPretraining(**TINY, task_set="mt30")

    class Before(Callback):
        def on_train_start(self, trainer, pl_module):
            self.embedding = pl_module.world_model.task_embedding.weight.detach().clone()

    before = Before()
    fit(module, data_of(store, batch_size=64), 3, callbacks=[before])
    assert len(module.world_model.task_names) == 30
    assert (module.world_model.obs_dim, module.world_model.action_dim) == (24, 6)
    moved = (module.world_model.task_embedding.weight.detach() - before.embedding).abs().amax(1) > 0
    names = {name for name, flag in zip(module.world_model.task_names, moved.tolist(), strict=True) if flag}
    assert names == {"cup-catch", "walker-walk", "reacher-easy"}


def test_a_task_that_the_model_does_not_know_is_refused_by_name(linear_store, fit):
    with pytest.raises(LitPWMError, match=r"(?s)spring.*walker-stand|walker-stand.*spring"):
        fit(WorldModelPretraining(**TINY, task_set="mt30"), data_of(linear_store), 1)


def test_an_unknown_task_set_suggests_the_nearest():
    with pytest.raises(LitPWMError, match="'mt30'"):
        WorldModelPretraining(task_set="mt3")


def test_without_a_datamodule_it_says_what_to_pass(fit):
    with pytest.raises(LitPWMError, match="MultitaskDataModule"):
        fit(WorldModelPretraining(**TINY), None, 1)


def test_a_checkpoint_of_another_size_is_refused(linear_store, fit, tmp_path):
    trainer = fit(WorldModelPretraining(**TINY), data_of(linear_store), 1)
    path = tmp_path / "small.ckpt"
    trainer.save_checkpoint(path)
    larger = WorldModelPretraining(**{**TINY, "latent_dim": 64})
    with pytest.raises(LitPWMError, match=r"small\.ckpt.*latent_dim is 32 there and 64 here"):
        fit(larger, data_of(linear_store), 2, ckpt_path=path)
    foreign = tmp_path / "foreign.ckpt"
    content = torch.load(path, weights_only=True)
    del content["lit_pwm"]
    torch.save(content, foreign)
    with pytest.raises(LitPWMError, match=r"foreign\.ckpt.*not written by lit_pwm"):
        fit(WorldModelPretraining(**TINY), data_of(linear_store), 2, ckpt_path=foreign)


def test_numbers_that_overflow_stop_the_run_before_any_weight_moves(tmp_path, fit):
    store = write_store(tmp_path / "huge.h5", {"huge": (3, 1)}, scale=3e38)
    module = WorldModelPretraining(**TINY, standardise_observations=False)

    class Before(Callback):
        def on_train_start(self, trainer, pl_module):
            self.weights = weights(pl_module)

    before = Before()
    with pytest.raises(NonFiniteLossError, match=r"world-model loss.*update 0") as caught:
        fit(module, data_of(store, batch_size=8), 2, callbacks=[before])
    assert caught.value.exit_code == 3
    assert_same(weights(module), before.weights)


def test_float16_is_refused_and_bfloat16_trains(linear_store, fit):
    # On a CPU Lightning turns the option into bfloat16, so the plugin is given to the Trainer itself.
    with pytest.raises(LitPWMError, match="bf16-mixed"):
        fit(WorldModelPretraining(**TINY), data_of(linear_store), 1, plugins=[MixedPrecision("16-mixed", "cpu")])
    half = WorldModelPretraining(**TINY)
    fit(half, data_of(linear_store), 2, precision="bf16-mixed")
    assert all(value.isfinite().all() for value in weights(half).values())
    assert half.world_model.encoder.net[0].weight.dtype == torch.float32


def test_embeddings_longer_than_one_are_shortened_by_an_update(linear_store, fit, tmp_path):
    module = WorldModelPretraining(**TINY)
    trainer = fit(module, data_of(linear_store), 1)
    with torch.no_grad():
        module.world_model.task_embedding.weight.add_(2)
    trainer.save_checkpoint(tmp_path / "long.ckpt")
    continued = WorldModelPretraining(initial_checkpoint=str(tmp_path / "long.ckpt"))
    fit(continued, data_of(linear_store), 1)
    norms = continued.world_model.task_embedding.weight.norm(dim=1)
    assert (load_world_model(tmp_path / "long.ckpt").task_embedding.weight.norm(dim=1) > 3).all()
    torch.testing.assert_close(norms, torch.ones(2), atol=1e-5, rtol=0)


def test_nothing_is_logged_where_the_interval_is_zero(linear_store, fit):
    trainer = fit(WorldModelPretraining(**TINY), data_of(linear_store), 2, log_every_n_steps=0)
    assert trainer.global_step == 2
    assert "train/loss" not in trainer.callback_metrics


def test_the_run_must_have_an_end(linear_store, fit):
    with pytest.raises(LitPWMError, match="max_steps"):
        fit(WorldModelPretraining(**TINY), data_of(linear_store), -1, max_epochs=-1)
