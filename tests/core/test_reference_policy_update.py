"""Two consecutive PWM updates: of the plain functions that `PolicyLearning` is made of, and by the shipped configs."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from lit_pwm.imagination import discounted_return, imagine, td_lambda
from lit_pwm.models import RunningStats
from lit_pwm.models.critics import BatchedLinear
from lit_pwm.models.layers import constrain_
from lit_pwm.optim import linear_decay
from lit_pwm.updates.optimized_part import rates_of

GAMMA = 0.99
WORLD_MODEL = ("configs/pretrain.yaml", "configs/world_model/mlp_tiny.yaml", "configs/tdmpc2_exact.yaml")
POLICY = ("configs/policy_learning.yaml", "configs/pwm_exact.yaml")
SMALL = {
    "latent_dim": 64,
    "task_dim": 64,
    "encoder.hidden_dim": 128,
    "dynamics.hidden_dim": 128,
    "reward.hidden_dim": 128,
}
"""Widths of the oracle's world model."""


@dataclass
class Update:
    """What one update computed, under the oracle's names."""

    neg_return_per_sample: Tensor
    ret_rms_mean: Tensor
    ret_rms_var: Tensor
    ret_rms_count: Tensor
    actor_loss: Tensor
    actor_grad_norm_before_clip: Tensor
    actor_grad_clipped: dict[str, Tensor]
    z_buf: Tensor
    rew_buf: Tensor
    next_values: Tensor
    target_values: Tensor
    critic_step_losses: Tensor
    value_loss: Tensor
    actor_after: dict[str, Tensor]
    critic_after: dict[str, Tensor]


@pytest.fixture(params=["functions", "shipped configs"])
def updates(request):
    """Both updates, and the reference's defects chosen by arguments."""
    return request.getfixturevalue("updates_of_functions" if request.param == "functions" else "updates_of_configs")


@pytest.fixture
def updates_of_functions(pwm_networks, oracle):
    """With PWM's settings written here."""
    world_model, actor, critic = pwm_networks
    numbers = oracle("pwm_update")
    world_model.requires_grad_(False)
    task, stats = numbers["task"], RunningStats()
    actor_optimizer = torch.optim.Adam(actor.parameters(), lr=5e-4, betas=(0.7, 0.95))
    critic_optimizer = torch.optim.Adam(critic.parameters(), lr=5e-4, betas=(0.7, 0.95))
    done = []
    for noise in numbers["eps"]:
        z = world_model.encode(numbers["obs"][0], task)
        rollout = imagine(world_model, actor, z, task, noise, reward_space="symlog", detach_actor_input=True)
        value = critic.minimum(rollout.latents[-1], task)
        returns = discounted_return(rollout.rewards, value, GAMMA, terminal_discount=GAMMA**17)
        stats.update(RunningStats.moments(-returns))
        statistics = stats.mean.clone(), stats.var.clone(), stats.count.clone()
        loss = -returns.mean() / (stats.var + 1e-5).sqrt().float()
        with torch.no_grad():
            next_values = critic.minimum(rollout.latents[1:], task)
            targets = td_lambda(rollout.rewards.detach(), next_values, GAMMA, lam=0.0)
        actor_optimizer.zero_grad()
        loss.backward()
        norm = nn.utils.clip_grad_norm_(actor.parameters(), 1.0)
        clipped = {name: p.grad.clone() for name, p in actor.named_parameters() if p.numel()}
        actor_optimizer.step()
        constrain_(actor)
        losses, states = [], rollout.latents[:-1].detach().flatten(0, 1)
        for _ in range(8):
            for chosen, wanted in zip(states.chunk(4), targets.flatten().chunk(4), strict=True):
                critic_loss = (critic(chosen, task.repeat(len(chosen) // len(task))) - wanted).square().mean()
                critic_optimizer.zero_grad()
                critic_loss.backward()
                nn.utils.clip_grad_norm_(critic.parameters(), 100.0)
                critic_optimizer.step()
                losses.append(critic_loss.detach())
        steps = torch.stack(losses)
        done.append(
            Update(
                -returns.detach(),
                *statistics,
                loss.detach(),
                norm,
                clipped,
                rollout.latents[:-1].detach(),
                rollout.rewards.detach(),
                next_values,
                targets,
                steps,
                steps.mean(),
                {k: v.clone() for k, v in actor.state_dict().items()},
                {k: v.clone() for k, v in critic.state_dict().items()},
            )
        )
    return done


@pytest.fixture(scope="module")
def start_exact(before_training, padless_store, load_reference, oracle, tmp_path_factory):
    """Acts on the module that the configs make for a world model of the oracle's sizes and weights."""
    path, numbers = tmp_path_factory.mktemp("exact") / "world_model.ckpt", oracle("pwm_update")

    def save(module):
        load_reference(module.world_model, part_of(numbers, "wm/"))
        module.trainer.save_checkpoint(path)

    sizes = {f"model.world_model.{name}": width for name, width in SMALL.items()}
    before_training(WORLD_MODEL, {"data.store": padless_store, **sizes}, save)

    def start(act, **options):
        given = {"model.world_model_checkpoint": path, "data.store": padless_store, **options}
        return before_training(POLICY, given, act)

    return start


@pytest.fixture(scope="module")
def updates_of_configs(start_exact, oracle, reference_actor, reference_critic):
    """By `PolicyLearning.update`; noise, minibatches and terminal discount are its arguments, and no options."""
    numbers, done = oracle("pwm_update"), []

    def act(module):
        assert (module.actor.action_mask == 1).all(), "no action of the store's tasks is padded"
        for networks, rename, name in (
            ((module.actor, module.averaged_actor), reference_actor, "actor0/"),
            ((module.critic, module.target_critic), reference_critic, "critic0/"),
        ):
            for network in networks:
                network.load_state_dict(rename(part_of(numbers, name)), strict=False)
        for noise in numbers["eps"]:
            done.append(one_update(module, {"obs": numbers["obs"], "task": numbers["task"]}, noise))

    start_exact(act, **{"model.actor.hidden_dims": "[64,32,16]", "model.critic.hidden_dims": "[32,16]"})
    return done


def one_update(module, batch, noise):
    """What `update` computes, by listening to the methods that it calls."""
    imagined, critic = [], []
    imagined_returns, critic_loss = module.imagined_returns, module.critic_loss

    def listened_returns(*args, **kwargs):
        rollout, returns = imagined_returns(*args, **kwargs)
        with torch.no_grad():
            imagined.append((rollout, returns, module.target_critic.minimum(rollout.latents[1:], batch["task"])))
        return rollout, returns

    def listened_loss(states, task, targets):
        critic.append((critic_loss(states, task, targets), targets))
        return critic[-1][0]

    module.imagined_returns, module.critic_loss = listened_returns, listened_loss
    minibatches = list(torch.arange(noise[..., 0].numel()).chunk(4)) * 8
    own = module.update_minibatches(len(batch["task"]))  # of the same sizes, in another order
    assert [len(minibatch) for minibatch in own] == [len(minibatch) for minibatch in minibatches]
    rates = rates_of(module.optimized.values())
    found = module.update(batch, {"actor": noise}, minibatches, rates, terminal_discount=GAMMA**17)
    del module.imagined_returns, module.critic_loss
    for slow, fast in ((module.averaged_actor, module.actor), (module.target_critic, module.critic)):
        assert all(map(torch.equal, slow.parameters(), fast.parameters())), "there is no average and no target network"
    ((rollout, returns, next_values),) = imagined
    assert len(critic) == len(minibatches)
    return Update(
        -returns.detach(),
        *(getattr(module.return_stats, name).clone() for name in ("mean", "var", "count")),
        found["actor_loss"],
        found["actor_gradient_norm"],
        {name: p.grad.clone() for name, p in module.actor.named_parameters() if p.numel()},
        rollout.latents[:-1].detach(),
        rollout.rewards.detach(),
        next_values,
        torch.cat([targets for _, targets in critic[:4]]),
        torch.stack([loss.detach() for loss, _ in critic]),
        found["critic_loss"],
        {k: v.clone() for k, v in module.averaged_actor.state_dict().items()},
        {k: v.clone() for k, v in module.target_critic.state_dict().items()},
    )


def part_of(numbers, prefix):
    return {key.removeprefix(prefix): value for key, value in numbers.items() if key.startswith(prefix)}


@pytest.mark.parametrize("index", [0, 1])
def test_every_intermediate(updates, oracle, index, reference_actor, reference_critic):
    numbers, update = oracle("pwm_update"), updates[index]
    forward = {"atol": 1e-4, "rtol": 1e-5}
    after = {"atol": (1e-4, 1e-3)[index], "rtol": 0}

    compared = set()

    def compare(name, ours, **tolerance):
        theirs = numbers[f"it{index}/{name}"]
        torch.testing.assert_close(ours.reshape(theirs.shape).to(theirs.dtype), theirs, **tolerance)
        compared.add(f"it{index}/{name}")

    for name in ("neg_return_per_sample", "z_buf", "rew_buf", "next_values", "target_values", "critic_step_losses"):
        compare(name, getattr(update, name), **forward)
    for name in ("ret_rms_mean", "ret_rms_var", "ret_rms_count", "actor_loss", "value_loss"):
        compare(name, getattr(update, name), **forward)
    compare("actor_grad_norm_before_clip", update.actor_grad_norm_before_clip, rtol=1e-4, atol=0)
    groups = {
        "actor_grad_clipped": (reference_actor, update.actor_grad_clipped, forward),
        "actor_after": (reference_actor, update.actor_after, after),
        "critic_after": (reference_critic, update.critic_after, after),
    }
    for group, (rename, ours, tolerance) in groups.items():
        expected = rename(part_of(numbers, f"it{index}/{group}/"))
        for name, value in expected.items():
            torch.testing.assert_close(ours[name], value, **tolerance)
        compared |= {key for key in numbers if key.startswith(f"it{index}/{group}/")}
    assert compared == {key for key in numbers if key.startswith(f"it{index}/")}


def test_the_clipped_gradient_is_the_one_that_would_have_been_without_clipping_scaled(updates):
    for update in updates:
        total = torch.stack([g.square().sum() for g in update.actor_grad_clipped.values()]).sum().sqrt()
        assert update.actor_grad_norm_before_clip > 10
        assert total.item() == pytest.approx(1.0, rel=1e-4)


def test_learning_rates_and_first_weights_of_the_shipped_configs(start_exact, oracle):
    numbers, rates = oracle("pwm_update"), {}

    def act(module):
        actor, critic = module.actor, module.critic
        assert (actor.hidden_dims, critic.hidden_dims, critic.num_critics) == ((400, 200, 100), (400, 200), 3)
        assert not actor.task_embedding.weight.numel()
        assert not critic.task_embedding.weight.numel()
        assert (actor.log_std.value == -1).all()
        for weight in (layer.weight for layer in critic.net if isinstance(layer, BatchedLinear)):
            narrow = weight.mT @ weight if weight.shape[1] >= weight.shape[2] else weight @ weight.mT
            torch.testing.assert_close(narrow, 2 * torch.eye(len(narrow[0])).expand_as(narrow), rtol=0, atol=1e-4)
        for scheduler in module.lr_schedulers():
            (group,), (factor,) = scheduler.optimizer.param_groups, scheduler.lr_lambdas
            rates[group["name"]] = [group["initial_lr"] * factor(int(step)) for step in numbers["lr_schedule_epochs"]]

    start_exact(act, **{"trainer.max_steps": 15000})
    for name in ("actor", "critic"):  # PWM gives both the same
        assert rates[name] == pytest.approx(numbers["lr_schedule_actor_max15000"].tolist(), rel=1e-9)


def test_learning_rate_schedule(oracle):
    numbers = oracle("pwm_update")
    for kind, first in (("actor", 5e-4), ("model", 3e-4)):
        factor = linear_decay(15000, first, 1e-5)
        ours = [first * factor(int(step)) for step in numbers["lr_schedule_epochs"]]
        assert ours == pytest.approx(numbers[f"lr_schedule_{kind}_max15000"].tolist(), rel=1e-9)
