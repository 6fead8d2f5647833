"""The measures themselves: ESNR against its closed form, random products against full Jacobians, substeps."""

from __future__ import annotations

import pytest
import torch

from lit_pwm.flow import FixedStep
from lit_pwm.measures.diagnostics import expected_snr, jacobian_square_norms, watching_substeps
from lit_pwm.models import FlowActor, FlowDynamics, MLPActor, MLPDynamics


@pytest.mark.parametrize("signal", [0.0, 0.5])
def test_esnr_of_gaussian_gradients_is_its_closed_form(signal):
    torch.manual_seed(0)
    groups, entries, deviation, trials = 8, 200, 1.5, 500
    mean = signal * torch.randn(entries, generator=torch.Generator().manual_seed(1))
    truth = (mean.square().sum() / (entries * deviation**2)).item()
    draws = mean + deviation * torch.randn(trials, groups, entries)
    values = torch.stack([expected_snr(rows) for rows in draws])
    error = values.std().item() / trials**0.5
    slack = 2 * truth / ((groups - 1) * entries - 2)  # the ratio's own bias
    assert abs(values.mean().item() - truth) < 4 * error + slack
    assert error < 0.05 * (truth + 0.1)
    plain = torch.stack([expected_snr(rows, unbiased=False) for rows in draws])
    torch.testing.assert_close(plain - values, torch.full((trials,), 1 / groups))


def test_esnr_by_hand():
    gradients = torch.tensor([[1.0, 0.0], [3.0, 4.0]])  # mean (2, 2), variances 2 and 8
    assert expected_snr(gradients, unbiased=False).item() == pytest.approx(8 / 10)
    assert expected_snr(gradients).item() == pytest.approx(0.3)
    assert expected_snr(7 * gradients).item() == pytest.approx(0.3)


@pytest.mark.parametrize("kind", [MLPDynamics, FlowDynamics])
def test_random_products_give_the_frobenius_norm_of_the_full_jacobian(kind):
    torch.manual_seed(0)
    dynamics = kind(16, 3, 4, hidden_dim=12)
    z, action, embedding = torch.rand(5, 2, 8).softmax(-1).flatten(-2), torch.randn(5, 3), torch.randn(5, 4)
    probes, generator, before = 600, torch.Generator().manual_seed(1), torch.get_rng_state()
    with torch.inference_mode():  # as in a validation
        to_z, to_action = jacobian_square_norms(lambda z, a: dynamics(z, a, embedding), (z, action), probes, generator)
    assert torch.equal(before, torch.get_rng_state())
    for row in range(5):
        full = torch.autograd.functional.jacobian(
            lambda z, a, row=row: dynamics(z, a, embedding[row]), (z[row], action[row])
        )
        for estimate, jacobian in zip((to_z[row], to_action[row]), full, strict=True):
            # The variance of a probe's value is 2 ‖JJᵀ‖²_F.
            error = (2 * (jacobian @ jacobian.T).square().sum() / probes).sqrt()
            assert abs(estimate - jacobian.square().sum()) < 4.5 * error
    assert all(p.grad is None for p in dynamics.parameters())


def test_the_gradients_of_substeps_are_those_of_the_states():
    torch.manual_seed(0)
    actor = FlowActor(16, 3, 2, hidden_dims=(8,), solver=FixedStep(substeps=2))
    z, task, noise = torch.randn(4, 16), torch.tensor([0, 1, 0, 1]), torch.randn(4, 3)
    with watching_substeps(actor) as found:
        actor(z, task, noise=noise).square().sum().backward()
    assert {tau: len(gradients) for tau, gradients in found.items()} == {0.0: 1, 0.5: 1}

    condition = actor.field.condition(z, actor.task_embedding(task))
    first = (actor.log_std().exp() * noise).detach().requires_grad_()
    second = first + 0.5 * actor.field(0.0, first, condition)
    loss = (second + 0.5 * actor.field(0.5, second, condition)).tanh().square().sum()
    expected = torch.autograd.grad(loss, (first, second))
    torch.testing.assert_close((found[0.0][0], found[0.5][0]), expected)

    with watching_substeps(MLPActor(16, 3, 2, hidden_dims=(8,))) as found:
        pass
    assert found == {}
    assert not actor.field._forward_pre_hooks
