"""Returns, targets and weights of imagined steps by γ c_t, against numbers that are worked out beside them."""

from __future__ import annotations

from functools import partial

import lightning.pytorch as pl
import numpy as np
import pytest
import torch

from datamodules import MultitaskDataModule
from lit_pwm import PolicyLearning, WorldModelPretraining
from lit_pwm.checkpoints import load_world_model
from lit_pwm.discounting import ConstantDiscount, ContinuationDiscount
from lit_pwm.errors import LitPWMError
from lit_pwm.imagination import Imagined, imagine
from lit_pwm.models import (
    ContinuationHead,
    CriticEnsemble,
    EnergyLoss,
    FlowActor,
    FlowDynamics,
    MLPActor,
    MLPDynamics,
    MLPEncoder,
    NoiseSource,
    TwoHotReward,
    WorldModelOptions,
)

HEAD = {"continuation": partial(ContinuationHead, hidden_dim=12)}


def options_of(dynamics, heads):
    parts = {"encoder": partial(MLPEncoder, hidden_dim=16), "reward": partial(TwoHotReward, hidden_dim=16)}
    return WorldModelOptions(dynamics, 16, 4, heads=heads, **parts)


def data_of(store):
    return MultitaskDataModule(store, horizon=2, batch_size=12, batches_per_epoch=100)


@pytest.fixture(scope="module")
def world_models(linear_store, fit, tmp_path_factory):
    """Files of one model: with a head to which no task ends, with one to which the first does, and without."""
    root, found = tmp_path_factory.mktemp("models"), {}
    for name, heads in (("asked", HEAD), ("without", None)):
        module = WorldModelPretraining(options_of(partial(MLPDynamics, hidden_dim=16), heads))
        trainer = fit(module, data_of(linear_store), 3)
        if name == "without":
            state = load_world_model(found["asked"]).state_dict()
            module.world_model.load_state_dict({k: v for k, v in state.items() if "continuation" not in k})
        found[name] = root / f"{name}.ckpt"
        trainer.save_checkpoint(found[name])
        if name == "asked":
            torch.manual_seed(3)
            torch.nn.init.normal_(module.world_model.heads["continuation"].net[-1].weight)
            module.world_model.know_ends_({"spring": True})
            found["ends"] = root / "ends.ckpt"
            trainer.save_checkpoint(found["ends"])
    return found


def learner(path, actor=MLPActor, **options):
    settings = {
        "actor": partial(actor, hidden_dims=(8,), task_dim=4),
        "critic": partial(CriticEnsemble, hidden_dims=(8,), task_dim=4),
        "horizon": 5,
        "actor_optimizer": {"average_rate": 0.5},
        "critic_optimizer": {"target_rate": 0.5, "passes": 2, "minibatches": 3},
    }
    return PolicyLearning(str(path), **{**settings, **options})


class AtUpdate(pl.Callback):
    """Does something with the module and the batch before the update of one number."""

    def __init__(self, number, act):
        self.number, self.act = number, act

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_step == self.number:
            self.act(pl_module, batch)


def by_hand(rewards, c, values, gamma, lam):
    """Returns [B], TD(λ) targets [H, B] and weights [H, B], one start and one step after the other, as DESIGN says.

    `values` are those of the states 1, ..., H.
    """
    steps, starts = rewards.shape
    returns, targets, weights = np.zeros(starts), np.zeros((steps, starts)), np.zeros((steps, starts))
    for b in range(starts):
        for t in range(steps):
            weights[t, b] = np.prod([c[k, b] for k in range(t)])
            returns[b] += np.prod([gamma * c[k, b] for k in range(t)]) * rewards[t, b]
        returns[b] += np.prod([gamma * c[k, b] for k in range(steps)]) * values[-1, b]
        later = values[-1, b]
        for t in reversed(range(steps)):
            last = t == steps - 1
            after = later if last else (1 - lam) * values[t, b] + lam * later
            later = targets[t, b] = rewards[t, b] + gamma * c[t, b] * after
    return returns, targets, weights


def test_survival_and_means_of_known_numbers():
    rewards, c = torch.tensor([[1.0, 2.0], [4.0, 8.0]]), torch.tensor([[0.5, 1.0], [0.25, 0.0]])
    rollout = Imagined(torch.zeros(3, 2, 1), torch.zeros(2, 2, 1), rewards, c)
    assert rollout.survival.tolist() == [[1, 1], [0.5, 1], [0.125, 0]]
    total, weight = rollout.counted()
    assert (total.item(), weight.item()) == (1 + 2 + 0.5 * 4 + 8, 3.5)
    plain = Imagined(*rollout.tensors()[:3])
    assert plain.survival is None
    assert [value.item() for value in plain.counted()] == [15, 4]


@pytest.mark.parametrize("actor", [MLPActor, FlowActor])
def test_returns_targets_and_weights_are_those_worked_out_by_hand(world_models, linear_store, fit, actor):
    module, seen = learner(world_models["ends"], actor, gamma=0.9, lam=0.7, returns={"reward_scale": 2.0}), []

    def look(module, batch):
        task, size = batch["task"], len(batch["task"])
        z = module.world_model.encode(batch["obs"][0], task)
        noise, minibatches = module.update_noise(size), module.update_minibatches(size)
        rollout, returns = module.imagined_returns(z, task, noise["actor"])
        states, actions = rollout.latents[:-1], rollout.actions
        with torch.no_grad():
            c = module.world_model.continuation(states, actions, task.expand(5, -1)).double().numpy()
            rewards = 2 * module.world_model.reward(states, actions, task.expand(5, -1)).double()
            values = module.target_critic.minimum(rollout.latents[1:], task).double().numpy()
        symlog = 2 * torch.sign(rewards / 2) * torch.log1p((rewards / 2).abs())
        assert (c[:, task == 1] == 1).all()
        assert c[:, task == 0].std() > 0.05
        expected = by_hand(symlog.numpy(), c, values, 0.9, 0.7)
        np.testing.assert_allclose(returns.detach().numpy(), expected[0], rtol=1e-4, atol=1e-5)
        own = module.critic_loss

        def watched(states, tasks, targets, weights):
            loss = own(states, tasks, targets, weights)
            error = module.critic(states, tasks).detach().double() - targets.double()
            by_state = error.square().mean(0) * weights
            assert loss.item() == pytest.approx(by_state.sum().item() / len(by_state), rel=1e-4), "divided by H·B"
            seen.append((targets, weights))
            return loss

        module.critic_loss = watched
        found = module.update(batch, noise, minibatches)
        module.critic_loss = own
        for (targets, weights), chosen in zip(seen, minibatches, strict=True):
            np.testing.assert_allclose(targets.numpy(), expected[1].flatten()[chosen], rtol=1e-3, atol=1e-4)
            np.testing.assert_allclose(weights.numpy(), expected[2].flatten()[chosen], rtol=1e-4)
        mean = (expected[2] * symlog.numpy()).sum() / expected[2].sum()
        assert found["imagined_reward"].item() == pytest.approx(mean, rel=1e-4)

    fit(module, data_of(linear_store), 3, callbacks=[AtUpdate(2, look)])
    assert len(seen) == 6


def test_the_gradient_of_c_reaches_the_actor(world_models, linear_store, fit):
    """Rewards and values that no action changes: only by c can the actor do anything."""
    found = {}

    def look(module, batch):
        torch.nn.init.zeros_(module.world_model.reward_head.net[-1].weight)
        module.world_model.reward_head.net[-1].bias.data[60:] += 4
        for p in module.target_critic.parameters():
            p.data.zero_()
        task = batch["task"]
        z, noise = module.world_model.encode(batch["obs"][0], task), module.update_noise(12)["actor"]
        for name, discounting in (("c", ContinuationDiscount()), ("one", ConstantDiscount())):
            module.actor.zero_grad()
            module.discounting = discounting
            rollout, returns = module.imagined_returns(z, task, noise)
            returns.sum().backward()
            found[name] = torch.cat([p.grad.flatten() for p in module.actor.parameters()]).clone()
        reward, state, alive, total = rollout.rewards[0, 0].item(), z, torch.ones(12), 0
        assert reward > 0.5
        assert rollout.continuation is None
        module.actor.zero_grad()
        for t, step in enumerate(noise):
            total = total + 0.99**t * alive * reward
            action = module.actor(state.detach(), task, noise=step)
            alive, state = (
                alive * module.world_model.continuation(state, action, task),
                module.world_model.next(state, action, task),
            )
        total.sum().backward()
        found["loop"] = torch.cat([p.grad.flatten() for p in module.actor.parameters()])
        module.actor.zero_grad()

    fit(learner(world_models["ends"]), data_of(linear_store), 2, callbacks=[AtUpdate(1, look)])
    assert found["c"].norm() > 1e-4
    assert found["one"].norm() < 1e-6 * found["c"].norm()
    torch.testing.assert_close(found["c"], found["loop"], rtol=1e-3, atol=1e-5)


class Beginning(pl.Callback):
    """Lets a run begin with weights and a seed that are given, but for the world model's, or keeps those it has."""

    def __init__(self, state):
        self.state = state

    def on_train_start(self, trainer, pl_module):
        own = {key: value.clone() for key, value in pl_module.state_dict().items() if not key.startswith("world_model")}
        if self.state:
            pl_module.load_state_dict(self.state, strict=False)
        else:
            self.state.update(own)


@pytest.mark.parametrize("actor", [MLPActor, FlowActor])
def test_where_no_episode_ends_a_head_changes_no_bit(world_models, linear_store, fit, actor):
    states, beginning = {}, {}
    for name, path, options in (
        ("without", "without", {}), ("one", "asked", {}), ("constant", "ends", {"discounting": ConstantDiscount}),
        ("c", "ends", {}),
    ):  # fmt: skip
        module = learner(world_models[path], actor, **options)
        trainer = fit(module, data_of(linear_store), 4, callbacks=[Beginning(beginning)])
        metrics = {key: value for key, value in trainer.callback_metrics.items() if "/" in key}
        metrics |= trainer.validate(module, datamodule=data_of(linear_store), verbose=False)[0]
        own = {key: value for key, value in module.state_dict().items() if not key.startswith("world_model.")}
        states[name] = {key: torch.as_tensor(value) for key, value in (own | metrics).items()}
    assert "val/imagined_reward" in states["without"]
    for name in ("one", "constant"):
        assert states[name].keys() == states["without"].keys()
        for key, value in states["without"].items():
            if key.endswith("imagined_reward"):  # summed in another order
                torch.testing.assert_close(states[name][key], value, rtol=1e-5, atol=1e-7)
            else:
                assert torch.equal(states[name][key], value), (name, key)
    assert not torch.equal(states["c"]["critic.net.0.weight"], states["one"]["critic.net.0.weight"])
    assert not torch.equal(states["c"]["val/imagined_reward"], states["constant"]["val/imagined_reward"])


def test_dynamics_that_sample_and_leading_axes(world_models, linear_store, fit):
    sampled = partial(FlowDynamics, hidden_dim=16, source=NoiseSource, loss=EnergyLoss)
    module = WorldModelPretraining(options_of(sampled, HEAD))
    fit(module, data_of(linear_store), 2)
    model = module.world_model.eval()
    model.know_ends_({"spin": True})
    actor = MLPActor(16, 2, 2, hidden_dims=(8,))
    task, z, noise = torch.tensor([0, 1, 1]), torch.rand(4, 3, 16), torch.randn(5, 4, 3, 2)
    drawn = torch.randn(5, 4, 3, *model.dynamics.noise_shape)
    rollout = imagine(model, actor, z, task, noise, dynamics_noise=drawn)
    assert rollout.continuation.shape == (5, 4, 3)
    assert rollout.survival.shape == (6, 4, 3)
    one = imagine(model, actor, z[2], task, noise[:, 2], dynamics_noise=drawn[:, 2])
    torch.testing.assert_close(rollout.survival[:, 2], one.survival)
    assert (rollout.continuation[..., 0] == 1).all()
    assert imagine(model, actor, z, task, noise, discounting=ConstantDiscount()).continuation is None


def test_it_is_an_option_by_its_class_and_kept_as_one(world_models, linear_store, fit, tmp_path):
    for given in (
        ConstantDiscount, ConstantDiscount(), {"class_path": "lit_pwm.discounting.ConstantDiscount"},
    ):  # fmt: skip
        module = learner(world_models["ends"], discounting=given)
        assert isinstance(module.discounting, ConstantDiscount)
        kept = {"class_path": "lit_pwm.discounting.ConstantDiscount", "init_args": {}}
        assert module.hparams["discounting"] == kept
    trainer = fit(module, data_of(linear_store), 1)
    trainer.save_checkpoint(tmp_path / "policy.ckpt")
    loaded = PolicyLearning.load_from_checkpoint(tmp_path / "policy.ckpt")
    assert isinstance(loaded.discounting, ConstantDiscount)
    assert loaded.world_model.terminating_tasks == ("spring",)
    assert isinstance(learner(world_models["ends"]).discounting, ContinuationDiscount)
    with pytest.raises(LitPWMError, match=r"Discounting"):
        learner(world_models["ends"], discounting={"class_path": "lit_pwm.pulls.L2Pull"})
    with pytest.raises(LitPWMError, match="no complete subclass"):
        learner(world_models["ends"], discounting={"class_path": "lit_pwm.discounting.Discounting"})
