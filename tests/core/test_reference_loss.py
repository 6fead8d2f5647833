"""The world-model loss and all its gradients agree with TD-MPC2's own `update()`."""

from __future__ import annotations

import pytest
import torch

from lit_pwm.losses import WorldModelObjective, discounted_mean


@pytest.fixture
def model(oracle, reference_world_model):
    weights = {k.removeprefix("model/"): v for k, v in oracle("tdmpc2_mt30_1m").items() if k.startswith("model/")}
    return reference_world_model(weights, latent=128, encoder=256, hidden=384, task_dim=96)


@pytest.fixture(scope="module")
def numbers(oracle):
    return oracle("tdmpc2_world_model_loss")


def batch_of(numbers, horizon):
    return {
        "obs": numbers["obs"][: horizon + 1],
        "action": numbers["action"][:horizon],
        "reward": numbers["reward"][:horizon, :, 0],
        "task": numbers["task"],
    }


@pytest.mark.parametrize(("horizon", "rho"), [(3, 0.5), (16, 0.99), (16, 0.5)])
def test_losses(model, numbers, horizon, rho):
    with torch.no_grad():
        loss = WorldModelObjective(rho=rho)(model, batch_of(numbers, horizon))
    for ours, name in ((loss["consistency"], "consistency_loss"), (loss["reward"], "reward_loss")):
        assert ours.item() == pytest.approx(numbers[f"H{horizon}_rho{rho}_{name}"].item(), rel=1e-5)


def test_total_and_every_gradient(model, numbers):
    """Two products with a vector and the norm cover every entry of large ones; every 16th row is compared whole."""
    loss = WorldModelObjective(rho=0.99, consistency_coef=20.0, coefficients={"reward": 0.1})(
        model, batch_of(numbers, 16)
    )
    assert loss["total"].item() == pytest.approx(numbers["grad_total_loss"].item(), rel=1e-5)
    loss["total"].backward()
    names = {
        "task_embedding.": "_task_emb.",
        "encoder.net.": "_encoder.state.",
        "dynamics.net.": "_dynamics.",
        "heads.reward.net.": "_reward.",
    }
    compared = set()
    for name, parameter in model.named_parameters():
        prefix = next(p for p in names if name.startswith(p))
        key = f"grad/{names[prefix]}{name.removeprefix(prefix)}"
        gradient = parameter.grad
        if key in numbers:
            assert_same_gradient(gradient, numbers[key], name)
            compared.add(key)
        else:
            assert gradient.norm().item() == pytest.approx(numbers[f"{key}@norm"].item(), rel=1e-3)
            columns, rows = (torch.arange(n, dtype=torch.float64).cos() for n in (gradient.shape[1], len(gradient)))
            assert_same_gradient((gradient.double() @ columns).float(), numbers[f"{key}@times_cos"], name)
            assert_same_gradient((rows @ gradient.double()).float(), numbers[f"{key}@cos_times"], name)
            assert_same_gradient(gradient[::16], numbers[f"{key}@rows"], name)
            compared |= {f"{key}@{kind}" for kind in ("norm", "times_cos", "cos_times", "rows")}
    assert compared == {key for key in numbers if key.startswith("grad/")}


def assert_same_gradient(ours, theirs, name):
    scale = theirs.abs().max().item()
    assert scale > 0, name
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4 * scale, msg=lambda text: f"{name}: {text}")


def test_discounted_mean_against_a_loop():
    x = torch.randn(5, 7, generator=torch.Generator().manual_seed(0))
    expected = sum(0.9**t * x[t].mean() for t in range(5)) / 5
    torch.testing.assert_close(discounted_mean(x, 0.9), expected)


def test_no_gradient_of_a_target_reaches_the_encoder(model, numbers):
    """With one step and no reward term, the encoder's only path to the loss is the first observation."""
    batch = batch_of(numbers, 1)
    batch["obs"] = batch["obs"].clone().requires_grad_()
    WorldModelObjective(coefficients={"reward": 0.0})(model, batch)["total"].backward()
    gradient = batch["obs"].grad
    assert gradient[0].abs().max() > 0
    assert gradient[1:].abs().max() == 0


def test_latent_variance_tells_a_collapsed_encoder(model, numbers):
    batch = batch_of(numbers, 2)
    healthy = WorldModelObjective()(model, batch)["latent_variance"].item()
    same = {**batch, "obs": batch["obs"][:, :1].expand_as(batch["obs"]).clone(), "task": batch["task"][:1].expand(32)}
    assert healthy > 1e-4
    assert WorldModelObjective()(model, same)["latent_variance"].item() < 1e-10
