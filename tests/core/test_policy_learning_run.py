"""Policy learning by a real Trainer on a world model trained on a linear system."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.plugins.precision import MixedPrecision

from datamodules import EpisodeWriter, MultitaskDataModule
from lit_pwm import PolicyLearning, WorldModelPretraining
from lit_pwm.checkpoints import load_policy, load_world_model
from lit_pwm.errors import LitPWMError, NonFiniteLossError
from lit_pwm.imagination import discounted_return, imagine, td_lambda
from lit_pwm.losses import WorldModelObjective
from lit_pwm.models import (
    CriticEnsemble,
    MLPActor,
    MLPDynamics,
    MLPEncoder,
    RunningStats,
    TwoHotReward,
    WorldModelOptions,
)
from lit_pwm.models.actors import LOG_STD_FLOOR
from lit_pwm.updates.draws import Draws

# The first is Lightning's advice to those who want the weights from before the update, which we do not.
pytestmark = [
    pytest.mark.filterwarnings("ignore:Using ModelCheckpoint with manual optimization"),
    pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`, callbacks"),
    pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no `val_dataloader`"),
]

BATCH = 16


def data_of(store, **options):
    return MultitaskDataModule(store, **{"horizon": 2, "batch_size": BATCH, "batches_per_epoch": 1000, **options})


def weights(module):
    return {key: value.clone() for key, value in module.state_dict().items()}


def assert_same(ours, theirs):
    assert ours.keys() == theirs.keys()
    for key, value in ours.items():
        assert torch.equal(value, theirs[key]), key


@pytest.fixture(scope="module")
def world_model_file(linear_store, fit, tmp_path_factory):
    """A trained world model, two of whose task embeddings are longer than one, as imported ones may be."""
    module = WorldModelPretraining(
        dynamics=partial(MLPDynamics, hidden_dim=48),
        latent_dim=48,
        encoder_dim=48,
        reward_dim=48,
        task_dim=4,
        lr=3e-3,
        final_lr_fraction=0.1,
    )
    trainer = fit(module, data_of(linear_store, batch_size=128, horizon=6), 250)
    path = tmp_path_factory.mktemp("world_model") / "model.ckpt"
    with torch.no_grad():
        embedding = module.world_model.task_embedding.weight
        embedding.mul_(1.7 / embedding.norm(dim=1, keepdim=True))
    trainer.save_checkpoint(path)
    return path


def learner(path, **options):
    settings = {
        "actor": partial(MLPActor, hidden_dims=(24,), task_dim=4),
        "critic": partial(CriticEnsemble, hidden_dims=(24,), task_dim=4),
        "horizon": 5,
        "critic_optimizer": {"passes": 2},
    }
    return PolicyLearning(str(path), **{**settings, **options})


class Record(Callback):
    """The state before the first update, and the imagined return of each."""

    def __init__(self):
        self.returns = []

    def on_train_start(self, trainer, pl_module):
        self.before = weights(pl_module)

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.batch = batch

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.returns.append(trainer.callback_metrics["train/imagined_return"].item())


def test_a_run(world_model_file, linear_store, fit):
    """One run, and what must hold after it."""
    record, updates = Record(), 60
    module = learner(world_model_file, actor_optimizer={"lr": 5e-3}, critic_optimizer={"lr": 5e-3, "passes": 2})
    trainer = fit(module, data_of(linear_store, batch_size=64), updates, callbacks=[record])

    assert trainer.global_step == updates == len(record.returns), "one optimizer ticks, though critics step often"
    trained = load_world_model(world_model_file)
    assert (trained.task_embedding.weight.norm(dim=1) > 1.5).all()
    assert_same(weights(module.world_model), weights(trained))
    assert all(p.grad is None for p in module.world_model.parameters())

    after = weights(module)
    for name in ("actor.mean.weight", "actor.log_std.value", "actor.task_embedding.weight", "critic.net.0.weight"):
        assert not torch.equal(after[name], record.before[name]), name
    assert_same(weights(module.target_critic), weights(module.critic))
    assert module.return_stats.count.item() == pytest.approx(updates * 64 + 1e-4, abs=1e-6)
    assert np.mean(record.returns[-5:]) > np.mean(record.returns[:5]) + 0.5
    assert [group["lr"] for o in trainer.optimizers[:2] for group in o.param_groups] == pytest.approx([1e-5, 1e-5])


def test_padded_action_dimensions_stay_zero_in_imagination(world_model_file, linear_store, fit):
    module = learner(world_model_file)
    fit(module, data_of(linear_store), 2)
    assert module.actor.action_mask.tolist() == [[1, 0], [1, 1]]
    task = torch.tensor([0, 1, 0, 1])
    z = module.world_model.encode(torch.randn(4, 4), task)
    actions = imagine(module.world_model, module.actor, z, task, torch.randn(5, 4, 2)).actions
    assert (actions[:, task == 0, 1] == 0).all()
    assert (actions[:, task == 1] != 0).all()
    assert (actions[:, task == 0, 0] != 0).all()


def test_log_sigma_is_held_at_its_floor_by_the_update(world_model_file, linear_store, fit):
    module = learner(world_model_file, actor=partial(MLPActor, hidden_dims=(8,), log_std_init=-3.0))
    fit(module, data_of(linear_store), 1)
    assert module.actor.log_std.value.tolist() == pytest.approx([LOG_STD_FLOOR] * 2)


def test_float16_is_refused(world_model_file, linear_store, fit):
    with pytest.raises(LitPWMError, match="bf16-mixed"):
        fit(learner(world_model_file), data_of(linear_store), 1, plugins=[MixedPrecision("16-mixed", "cpu")])


def test_a_resumed_run_obeys_its_own_learning_rates(world_model_file, linear_store, fit, checkpoint_every, tmp_path):
    fit(learner(world_model_file), data_of(linear_store), 2, callbacks=[checkpoint_every(2)], enable_checkpointing=True)
    resumed = learner(
        world_model_file,
        actor_optimizer={"lr": 1e-4, "final_lr": 0.0},
        critic_optimizer={"lr": 2e-4, "final_lr": 0.0, "passes": 2},
    )
    trainer = fit(resumed, data_of(linear_store), 4, ckpt_path=tmp_path / "step=2.ckpt", callbacks=[Rates()])
    seen = [rate for rates in trainer.callbacks[0].seen for rate in rates]
    assert seen == pytest.approx([0.5e-4, 1e-4, 0.25e-4, 0.5e-4])


class Rates(Callback):
    """The learning rates with which each update is made."""

    def __init__(self):
        self.seen = []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.seen.append(tuple(o.param_groups[0]["lr"] for o in trainer.optimizers[:2]))


def test_the_first_update_is_that_of_the_plain_functions(world_model_file, linear_store, fit):
    record = Record()
    options = {
        "horizon": 3, "gamma": 0.9, "lam": 0.7, "returns": {"reward_scale": 3.0, "reward_space": "raw"},
    }  # fmt: skip
    module = learner(
        world_model_file,
        **options,
        actor_optimizer={"lr": 1e-3, "average_rate": 0.1},
        critic_optimizer={"lr": 1e-3, "passes": 1, "minibatches": 1, "target_rate": 0.25},
    )
    fit(module, data_of(linear_store), 1, callbacks=[record])

    world_model = load_world_model(world_model_file).requires_grad_(False)
    actor, critic = MLPActor(48, 2, 2, hidden_dims=(24,), task_dim=4), CriticEnsemble(48, 2, 3, (24,), task_dim=4)
    for name, network in (("actor.", actor), ("critic.", critic)):
        state = {k.removeprefix(name): v for k, v in record.before.items() if k.startswith(name)}
        network.load_state_dict(state)
    actor.set_action_mask(world_model.action_mask())
    actor_optimizer = torch.optim.Adam(actor.parameters(), lr=1e-3, betas=(0.7, 0.95))
    critic_optimizer = torch.optim.Adam(critic.parameters(), lr=1e-3, betas=(0.7, 0.95))
    assert record.batch["obs"].shape[0] == 1  # first observations alone
    task = record.batch["task"]
    noise = Draws(int(record.before["noise_seed"]), 0).normal("actor", BATCH, (3, 2)).transpose(0, 1)
    rollout = imagine(world_model, actor, world_model.encode(record.batch["obs"][0], task), task, noise, "raw")
    rewards = 3.0 * rollout.rewards
    returns = discounted_return(rewards, critic.minimum(rollout.latents[-1], task), 0.9, 0.9**3)
    stats = RunningStats()
    stats.update(RunningStats.moments(-returns))
    targets = td_lambda(rewards.detach(), critic.minimum(rollout.latents[1:], task).detach(), 0.9, 0.7)
    actor_optimizer.zero_grad()
    (-returns.mean() / (stats.var + 1e-5).sqrt()).backward()
    torch.nn.utils.clip_grad_norm_(actor.parameters(), 1.0)
    actor_optimizer.step()
    critic_optimizer.zero_grad()
    (critic(rollout.latents[:-1].detach(), task) - targets).square().mean().backward()
    torch.nn.utils.clip_grad_norm_(critic.parameters(), 100.0)
    critic_optimizer.step()

    after = weights(module)
    for name, network in (("actor.", actor), ("critic.", critic)):
        for key, value in network.state_dict().items():
            torch.testing.assert_close(after[name + key], value, atol=2e-6, rtol=1e-5)
            if value.ndim > 1 and "mask" not in key:
                assert not torch.equal(value, record.before[name + key]), key
    for key, value in critic.state_dict().items():
        slow = torch.lerp(record.before["critic." + key], value, 0.25)
        torch.testing.assert_close(after["target_critic." + key], slow, atol=2e-6, rtol=1e-5)
    for key, value in actor.state_dict().items():
        average = torch.lerp(record.before["actor." + key], value, 0.1)
        torch.testing.assert_close(after["averaged_actor." + key], average, atol=2e-6, rtol=1e-5)
    assert after["return_stats.var"].item() == pytest.approx(stats.var.item())
    assert record.returns[0] == pytest.approx(returns.mean().item(), rel=1e-5)


def test_resuming_gives_the_bits_of_an_uninterrupted_run(
    world_model_file, linear_store, fit, checkpoint_every, tmp_path
):
    data = {"seed": 5, "batches_per_epoch": 4}
    whole = learner(world_model_file)
    callbacks = [checkpoint_every(3)]
    fit(whole, data_of(linear_store, **data), 10, callbacks=callbacks, enable_checkpointing=True)
    for step in (3, 9):
        resumed = learner(world_model_file)
        path = tmp_path / f"step={step}.ckpt"
        trainer = fit(resumed, data_of(linear_store, **data), 10, seed=999, ckpt_path=path)
        assert trainer.global_step == 10
        assert_same(weights(resumed), weights(whole))


def test_the_same_seed_repeats_and_another_gives_other_weights_and_noise(world_model_file, linear_store, fit):
    results = []
    for seed in (1, 1, 2):
        module = learner(world_model_file)
        fit(module, data_of(linear_store, seed=0), 2, seed=seed)
        results.append(weights(module))
    assert_same(results[0], results[1])
    assert not torch.equal(results[0]["actor.mean.weight"], results[2]["actor.mean.weight"])
    assert results[0]["noise_seed"] != results[2]["noise_seed"]


def test_noise_is_new_in_every_update(world_model_file, linear_store, fit):
    seen = []

    class Noise(Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            seen.append(pl_module.update_noise(4)["actor"].flatten())

    fit(learner(world_model_file), data_of(linear_store), 3, callbacks=[Noise()])
    assert len({tuple(row.tolist()) for row in seen}) == 3


def test_a_policy_checkpoint_is_usable_alone(world_model_file, linear_store, fit, tmp_path):
    copy = tmp_path / "model.ckpt"
    copy.write_bytes(world_model_file.read_bytes())
    module = learner(copy)
    trainer = fit(module, data_of(linear_store, tasks=["spin"]), 2)
    trainer.save_checkpoint(tmp_path / "policy.ckpt")
    copy.unlink()

    policy = load_policy(tmp_path / "policy.ckpt")
    assert policy.trained_tasks == ("spin",)
    assert policy.task_names == ("spring", "spin")
    obs = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    action = policy.act(obs, "spin")
    assert action.shape == (3, 2)
    np.testing.assert_array_equal(action, module.policy().act(obs, "spin"))
    assert (policy.act(obs, "spin", deterministic=False) != action).any()

    again = PolicyLearning.load_from_checkpoint(tmp_path / "policy.ckpt")
    assert_same(weights(again), weights(module))
    assert_same(weights(load_world_model(tmp_path / "policy.ckpt")), weights(module.world_model))


@pytest.mark.parametrize("now", ["missing", "damaged", "of another size"])
def test_what_a_policy_began_with_is_not_opened_when_it_goes_on(world_model_file, linear_store, fit, tmp_path, now):
    model, first, file = (tmp_path / f"{name}.ckpt" for name in ("model", "first", "run"))
    model.write_bytes(world_model_file.read_bytes())
    fit(learner(model), data_of(linear_store), 1).save_checkpoint(first)
    began = {"initial_policy_checkpoint": str(first)}
    whole = learner(model, **began)
    fit(whole, data_of(linear_store), 1).save_checkpoint(file)
    fit(whole := learner(model, **began), data_of(linear_store), 3)
    for path in (model, first):
        path.unlink()
        if now == "damaged":
            path.write_bytes(b"nothing of the kind")
    if now == "of another size":
        other = WorldModelPretraining(dynamics=partial(MLPDynamics, hidden_dim=8), latent_dim=16, task_dim=2)
        fit(other, data_of(linear_store), 1).save_checkpoint(model)
        first.write_bytes(model.read_bytes())
    resumed = learner(model, **began)
    assert fit(resumed, data_of(linear_store), 3, ckpt_path=file).global_step == 3
    assert_same(weights(resumed), weights(whole))
    with pytest.raises(LitPWMError, match=r"run\.ckpt.*actor\.init_args"):
        fit(learner(model, actor=partial(MLPActor, hidden_dims=(9,))), data_of(linear_store), 4, ckpt_path=file)


def test_validation_measures_the_world_model_by_an_objective(world_model_file, linear_store, fit):
    module = learner(world_model_file, objective=WorldModelObjective(rho=0.9))
    data, every = data_of(linear_store, val_fraction=0.2), {"val_check_interval": 1, "check_val_every_n_epoch": None}
    trainer = fit(module, data, 1, **every)
    assert 0 < trainer.callback_metrics["val/world_model_loss"] < 10


def test_a_world_model_is_not_made_of_parts_beside_a_checkpoint(world_model_file, linear_store, fit, tmp_path):
    parts = {
        "dynamics": partial(MLPDynamics, hidden_dim=48),
        "latent_dim": 48,
        "task_dim": 4,
        "encoder": partial(MLPEncoder, hidden_dim=48),
        "reward": partial(TwoHotReward, hidden_dim=48),
    }
    with pytest.raises(LitPWMError, match=r"model\.ckpt.*brings one of its own.*joint\.yaml"):
        fit(learner(world_model_file, world_model=WorldModelOptions(**parts)), data_of(linear_store), 1)
    fit(learner(world_model_file), data_of(linear_store), 1).save_checkpoint(tmp_path / "policy.ckpt")
    other = learner(world_model_file, world_model=WorldModelOptions(**parts | {"latent_dim": 64}))
    with pytest.raises(LitPWMError, match=r"policy\.ckpt.*latent_dim is 48 there and 64 here"):
        fit(other, data_of(linear_store), 2, ckpt_path=tmp_path / "policy.ckpt")


def test_what_policy_learning_cannot_start_from(world_model_file, linear_store, fit, tmp_path):
    with pytest.raises(LitPWMError, match="world_model_checkpoint is not set"):
        fit(PolicyLearning(), data_of(linear_store), 1)
    with pytest.raises(LitPWMError, match="MultitaskDataModule"):
        fit(learner(world_model_file), None, 1)
    with pytest.raises(LitPWMError, match=r"nothing\.ckpt.*does not exist"):
        fit(learner(tmp_path / "nothing.ckpt"), data_of(linear_store), 1)
    with pytest.raises(LitPWMError, match=r"model\.ckpt.*holds a world model.*world_model_checkpoint"):
        fit(learner(world_model_file), data_of(linear_store), 1, ckpt_path=world_model_file)


def test_another_actor_than_the_checkpoints_is_refused(world_model_file, linear_store, fit, tmp_path):
    trainer = fit(learner(world_model_file), data_of(linear_store), 1)
    trainer.save_checkpoint(tmp_path / "policy.ckpt")
    wider = learner(world_model_file, actor=partial(MLPActor, hidden_dims=(32,)))
    with pytest.raises(LitPWMError, match=r"policy\.ckpt.*actor\.init_args"):
        fit(wider, data_of(linear_store), 2, ckpt_path=tmp_path / "policy.ckpt")


def made_store(path, terminated=False, scale=1.0):
    rng = np.random.default_rng(0)
    with EpisodeWriter(path, tasks={"spring": (2, 1)}) as writer:
        for index in range(8):
            writer.append(
                task="spring",
                obs=scale * rng.uniform(-1, 1, (21, 2)),
                action=rng.uniform(-1, 1, (20, 1)),
                reward=np.ones(20),
                terminated=terminated and index == 3,
                source="made",
            )
    return path


def test_data_with_terminations_is_refused(world_model_file, fit, tmp_path):
    store = made_store(tmp_path / "ends.h5", terminated=True)
    with pytest.raises(LitPWMError, match="termination"):
        fit(learner(world_model_file), data_of(store), 1)


def test_numbers_that_overflow_stop_the_run_before_any_weight_moves(world_model_file, fit, tmp_path):
    store, record = made_store(tmp_path / "huge.h5", scale=3.3e38), Record()
    module = learner(world_model_file)
    with pytest.raises(NonFiniteLossError, match="actor loss"):
        fit(module, data_of(store), 1, callbacks=[record])
    networks = ("actor.", "averaged_actor.", "critic.", "target_critic.", "world_model.")
    after = {k: v for k, v in weights(module).items() if k.startswith(networks)}
    assert_same(after, {k: v for k, v in record.before.items() if k.startswith(networks)})


def test_validation_measures_the_deterministic_policy(world_model_file, linear_store, fit):
    module = learner(world_model_file)
    data = data_of(linear_store)
    trainer = fit(module, data, 1)
    first, second = (
        trainer.validate(module, datamodule=data, verbose=False)[0]["val/imagined_reward"] for _ in range(2)
    )
    assert first == second
    assert 0 < first < 1
