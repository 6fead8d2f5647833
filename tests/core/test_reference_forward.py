"""The world model's numbers agree with TD-MPC2's and PWM's."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lit_pwm.models import TwoHot, symexp, symlog
from lit_pwm.models.layers import simnorm

WIDTHS = {"latent": 128, "encoder": 256, "hidden": 384, "task_dim": 96}


@pytest.fixture(scope="module")
def numbers(oracle):
    return oracle("tdmpc2_mt30_1m")


def weights_of(numbers):
    return {key.removeprefix("model/"): value for key, value in numbers.items() if key.startswith("model/")}


def close(ours, theirs, atol=1e-5):
    torch.testing.assert_close(ours, theirs, atol=atol, rtol=0)


def test_symlog_and_its_inverse(numbers):
    x = numbers["th_x"]
    close(symlog(x), numbers["th_symlog"], 1e-6)
    torch.testing.assert_close(symexp(symlog(x)), numbers["th_symexp_of_symlog"], rtol=1e-5, atol=1e-6)


def test_two_hot_encoding_decoding_and_soft_cross_entropy(numbers):
    two_hot, x, logits = TwoHot(), numbers["th_x"][:, 0], numbers["th_logits"]
    assert x.abs().max() > symexp(torch.tensor(10.0))  # beyond the bins on both sides, so that the clamp is exercised
    close(two_hot.encode(x), numbers["th_two_hot"], 1e-6)
    torch.testing.assert_close(two_hot.decode(logits), numbers["th_two_hot_inv"][:, 0], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(two_hot.cross_entropy(logits, x), numbers["th_soft_ce"][:, 0], rtol=1e-6, atol=1e-5)


def test_two_hot_decodes_what_it_encodes_at_every_bin_and_between():
    two_hot = TwoHot()
    x = symexp(torch.linspace(-10, 10, 1001))
    encoded = two_hot.encode(x)
    close(encoded.sum(-1), torch.ones(1001), 1e-6)
    assert (encoded > 1e-3).sum(-1).max() <= 2
    decoded = two_hot.decode_symlog(encoded.clamp(min=1e-30).log())
    close(decoded, symlog(x), 2e-5)


def test_two_hot_of_another_support():
    two_hot = TwoHot(num_bins=11, low=-1.0, high=1.0)
    x = torch.tensor([0.0, 0.25, symexp(torch.tensor(1.0)).item(), 50.0, -50.0])
    target = two_hot.encode(x)
    close(target @ two_hot.bins, symlog(x).clamp(-1, 1), 1e-6)


def test_decoded_rewards_keep_their_precision_under_bfloat16_autocast():
    # Summing 101 bins in bfloat16 would lose more than rewards of one step differ by.
    two_hot = TwoHot()
    logits = torch.randn(256, 101, generator=torch.Generator().manual_seed(0))
    exact = two_hot.decode_symlog(logits)
    with torch.autocast("cpu", torch.bfloat16):
        decoded = two_hot.decode_symlog(logits)
    assert decoded.dtype == torch.float32
    close(decoded, exact, 1e-5)


def test_simnorm_is_a_softmax_in_consecutive_groups_of_eight():
    logits = torch.randn(5, 3, 32, generator=torch.Generator().manual_seed(0))
    expected = torch.cat([logits[..., i : i + 8].softmax(-1) for i in range(0, 32, 8)], dim=-1)
    close(simnorm(logits), expected, 2e-7)


def test_encoder_dynamics_and_reward_of_tdmpc2(numbers, reference_world_model):
    model = reference_world_model(weights_of(numbers), **WIDTHS)
    task, actions = numbers["task"], numbers["actions"]
    norms = model.task_embedding.weight.norm(dim=1)
    assert (norms[task] > 1).any(), "the oracle exercises embeddings that the lookup has to shorten"
    with torch.no_grad():
        z = model.encode(numbers["obs"], task)
        close(z, numbers["z0"])
        latents, rewards = model.rollout(z, actions, task)
        logits = model.reward_logits(latents[:-1], actions, task)
        close(latents[1:], numbers["next_z"])
        close(model.next(z, actions[0], task), numbers["next_z"][0])
        close(logits, numbers["reward_logits"], 5e-5)
        torch.testing.assert_close(rewards, numbers["reward_two_hot_inv"][..., 0], rtol=1e-5, atol=1e-5)
        close(model.reward_head.two_hot.decode_symlog(logits), numbers["reward_symlog"][..., 0])
        torch.testing.assert_close(model.reward(latents[:-1], actions, task), rewards, rtol=1e-6, atol=1e-7)


def test_encoder_of_another_checkpoint_loaded_as_pwm_does(oracle, reference_world_model):
    numbers = oracle("pwm_mt30_1m_encoder")
    model = reference_world_model(weights_of(numbers), **WIDTHS)
    with torch.no_grad():
        close(model.encode(numbers["obs"], numbers["task"]), numbers["z0"])


def test_task_embedding_equals_torchs_max_norm_embedding_in_values_and_gradients(numbers, reference_world_model):
    ours = reference_world_model(weights_of(numbers), **WIDTHS).task_embedding
    theirs = nn.Embedding(30, 96, max_norm=1.0)
    theirs.weight.data.copy_(ours.weight.data)
    task = torch.arange(30).repeat(2)
    scale = torch.randn(60, 96, generator=torch.Generator().manual_seed(0))
    mine, reference = ours(task), theirs(task)
    assert (ours.weight.norm(dim=1) > 1).sum() > 3
    # Ours keeps the stored rows and adds the correction, so that the last bit may differ.
    close(mine, reference, 2e-7)
    (mine * scale).sum().backward()
    (reference * scale).sum().backward()
    torch.testing.assert_close(ours.weight.grad, theirs.weight.grad, rtol=1e-6, atol=1e-7)
