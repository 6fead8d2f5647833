"""The world-model loss and all its gradients agree with TD-MPC2's own `update()`."""

from __future__ import annotations

import copy

import pytest
import torch

from lit_pwm.losses import WorldModelObjective, discounted_mean
from lit_pwm.models.layers import constrain_


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
    loss = WorldModelObjective(rho=0.99, consistency_coef=20.0, coefficients={"reward": 0.1})(
        model, batch_of(numbers, 16)
    )
    assert loss["total"].item() == pytest.approx(numbers["grad_total_loss"].item(), rel=1e-5)
    loss["total"].backward()
    assert_every_gradient(model, numbers)


def assert_every_gradient(model, numbers):
    """Two products with a vector and the norm cover every entry of large ones; every 16th row is compared whole."""
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


# -- from the shipped configs ------------------------------------------------------------------------------------------
STACK = ("configs/pretrain.yaml", "configs/world_model/mlp_1m.yaml", "configs/tdmpc2_exact.yaml")


@pytest.fixture
def exact(before_training, padless_store, load_reference, oracle):
    """Acts on the module that the configs make of TD-MPC2's 1 M model, once it holds the oracle's weights."""

    def run(act, **options):
        def ready(module):
            model = module.world_model
            assert not model.obs_mean.any(), "observations are taken as they are"
            assert (model.obs_std == 1).all()
            load_reference(model, part_of(oracle("tdmpc2_mt30_1m"), "model/"))
            act(module)

        before_training(STACK, {"data.store": padless_store, **options}, ready)

    return run


def part_of(numbers, prefix):
    return {key.removeprefix(prefix): value for key, value in numbers.items() if key.startswith(prefix)}


@pytest.mark.parametrize(("horizon", "rho"), [(16, 0.99), (3, 0.5)], ids=["of PWM's models", "of TD-MPC2's own runs"])
def test_losses_of_the_shipped_configs(exact, numbers, horizon, rho):
    options = {} if rho == 0.99 else {"data.horizon": horizon, "model.objective.rho": rho}
    found = {}

    def act(module):
        assert module.trainer.datamodule.horizon == horizon
        found.update(module.update_loss(batch_of(numbers, horizon), {}))

    exact(act, **options)
    for ours, name in (("consistency", "consistency_loss"), ("reward", "reward_loss")):
        assert found[ours].item() == pytest.approx(numbers[f"H{horizon}_rho{rho}_{name}"].item(), rel=1e-5)


def test_total_gradients_and_step_of_the_shipped_configs(exact, numbers):
    """The step beside torch's Adam with TD-MPC2's settings, once within the clipped norm and once beyond it."""

    def act(module):
        model, batch = module.world_model, batch_of(numbers, 16)
        total = module.update_loss(batch, {})["total"]
        assert total.item() == pytest.approx(numbers["grad_total_loss"].item(), rel=1e-5)
        total.backward()
        assert_every_gradient(model, numbers)

        groups, constant = module.optimized.optimizer.param_groups, module.lr_schedulers().lr_lambdas[0]
        assert {(group["betas"], group["eps"]) for group in groups} == {((0.9, 0.999), 1e-8)}
        assert [constant(step) for step in (0, 50_000, 100_000)] == [1, 1, 1]
        constrain_(model)  # the oracle holds embeddings that the reference's first lookup shortens
        theirs = copy.deepcopy(model)
        encoder = {id(parameter) for parameter in theirs.encoder.parameters()}
        groups = [{"params": list(theirs.encoder.parameters()), "lr": 0.3 * 3e-4}]
        groups.append({"params": [p for p in theirs.parameters() if id(p) not in encoder]})
        adam, norms = torch.optim.Adam(groups, lr=3e-4), []
        for coefficient in (0.1, 1e4):
            module.objective.coefficients["reward"] = coefficient
            adam.zero_grad()
            module.objective(theirs, batch)["total"].backward()
            norms.append(torch.nn.utils.clip_grad_norm_(theirs.parameters(), 20.0).item())
            adam.step()
            constrain_(theirs)
            assert module.update(batch, {})["gradient_norm"].item() == pytest.approx(norms[-1], rel=1e-4)
        assert norms[0] < 10
        assert norms[1] > 40
        for (name, ours), reference in zip(model.named_parameters(), theirs.parameters(), strict=True):
            # A step moves an entry by up to 3e-4.
            torch.testing.assert_close(
                ours, reference, rtol=0, atol=1e-6, msg=lambda text, name=name: f"{name}: {text}"
            )

    exact(act)
