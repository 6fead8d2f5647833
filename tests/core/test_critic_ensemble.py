"""The batched ensemble equals its members one by one."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from lit_pwm.models import CriticEnsemble
from lit_pwm.models.component import factory_from
from lit_pwm.models.layers import simnorm

Z, N = 16, 3


@pytest.fixture(params=[{}, {"task_dim": 5, "num_critics": 4, "hidden_dims": (20,)}], ids=["pwm", "tasks"])
def critic(request):
    torch.manual_seed(0)
    critic = CriticEnsemble(Z, N, **{"hidden_dims": (24, 12), **request.param})
    for p in critic.parameters():
        p.data.add_(0.1 * torch.randn_like(p))  # so that scales and shifts of the norms matter
    return critic


def latents(*lead):
    return simnorm(2 * torch.randn(*lead, Z, generator=torch.Generator().manual_seed(1)))


def one_member(critic, index, z, task):
    x = torch.cat([z, critic.task_embedding(task)], dim=-1)
    for layer in critic.net:
        name = type(layer).__name__
        if name == "BatchedLinear":
            x = F.linear(x, layer.weight[index].T, layer.bias[index, 0])
        elif name == "BatchedLayerNorm":
            x = F.layer_norm(x, x.shape[-1:], layer.weight[index, 0], layer.bias[index, 0])
        else:
            x = F.mish(x)
    return x.squeeze(-1)


def test_equals_a_loop_over_members_which_differ(critic):
    z, task = latents(33), torch.arange(33) % N
    values = critic(z, task)
    assert values.shape == (critic.num_critics, 33)
    loop = torch.stack([one_member(critic, i, z, task) for i in range(critic.num_critics)])
    torch.testing.assert_close(values, loop, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(critic.minimum(z, task), loop.min(0).values, atol=1e-5, rtol=1e-5)
    for i in range(1, critic.num_critics):
        assert (values[i] - values[0]).abs().max() > 1e-2


def test_time_major_inputs_with_one_task_row(critic):
    z, task = latents(5, 33), torch.arange(33) % N
    values = critic(z, task)
    assert values.shape == (critic.num_critics, 5, 33)
    for t in range(5):
        torch.testing.assert_close(values[:, t], critic(z[t], task), atol=1e-6, rtol=1e-5)


def test_gradients_of_a_member_stay_in_it(critic):
    z, task = latents(33).requires_grad_(), torch.arange(33) % N
    critic(z, task)[1].sum().backward()
    assert z.grad.abs().max() > 0
    for layer in critic.net:
        for p in layer.parameters():
            assert p.grad[1].abs().max() > 0
            assert p.grad[0].abs().max() == 0
            assert p.grad[2:].abs().max() == 0


def test_initialisation_is_orthogonal_with_gain_root_two():
    torch.manual_seed(0)
    for layer in CriticEnsemble(Z, N, hidden_dims=(24, 12)).net:
        if type(layer).__name__ == "BatchedLinear":
            for weight in layer.weight.detach():
                rows, columns = weight.shape
                product = weight @ weight.T if rows <= columns else weight.T @ weight
                torch.testing.assert_close(product, 2 * torch.eye(len(product)), atol=1e-5, rtol=0)
            assert layer.bias.abs().max() == 0


def test_description_and_weights_round_trip(critic):
    again = factory_from(critic.description(), CriticEnsemble)(Z, N)
    assert again.description() == critic.description()
    again.load_state_dict(critic.state_dict())
    z, task = latents(9), torch.arange(9) % N
    torch.testing.assert_close(again(z, task), critic(z, task), rtol=0, atol=0)


def test_looks_at_the_task_only_if_it_has_a_task_width(critic):
    critic.task_embedding.weight.data.mul_(5)
    z = latents(9)
    difference = critic(z, torch.zeros(9, dtype=torch.int64)) - critic(z, torch.ones(9, dtype=torch.int64))
    assert (difference.abs().max() > 1e-3) == (critic.task_dim > 0)
