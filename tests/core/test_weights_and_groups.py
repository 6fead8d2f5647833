"""Which weights change when, and who holds them."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import nn

from lit_pwm.errors import LitPWMError
from lit_pwm.losses import WorldModelObjective
from lit_pwm.models import CriticEnsemble, MLPActor, MLPDynamics, WorldModel
from lit_pwm.models.layers import TaskEmbedding, constrain_
from lit_pwm.models.sizes import SIZES, world_model_size
from lit_pwm.optim import check_each_parameter_once
from lit_pwm.options.optimizers import WorldModelOptimizer

TASKS = {"walker-walk": (24, 6), "cup-catch": (8, 2), "cartpole-swingup": (5, 1)}


@pytest.fixture
def model():
    torch.manual_seed(0)
    model = WorldModel(
        TASKS, partial(MLPDynamics, hidden_dim=32), latent_dim=32, encoder_dim=16, reward_dim=16, task_dim=8
    )
    with torch.no_grad():
        model.task_embedding.weight.normal_(0, 1)  # rows longer than one, as imported checkpoints may hold
    return model


def batch(horizon=4, size=6):
    generator = torch.Generator().manual_seed(1)
    return {
        "obs": torch.randn(horizon + 1, size, 24, generator=generator),
        "action": torch.rand(horizon, size, 6, generator=generator) * 2 - 1,
        "reward": torch.rand(horizon, size, generator=generator),
        "task": torch.arange(size) % len(TASKS),
    }


def snapshot(module: nn.Module):
    return {key: value.clone() for key, value in module.state_dict().items()}


def assert_unchanged(module: nn.Module, before):
    for key, value in module.state_dict().items():
        assert torch.equal(value, before[key]), key


def test_no_forward_pass_or_backward_changes_a_weight(model):
    assert (model.task_embedding.weight.norm(dim=1) > 1).all()
    before, data = snapshot(model), batch()
    for mode in (True, False):
        model.train(mode)
        loss = WorldModelObjective()(model, data)["total"]
        loss.backward()
        z = model.encode(data["obs"], data["task"])
        model.next(z[:-1], data["action"], data["task"])
        model.reward(z[:-1], data["action"], data["task"])
        model.rollout(z[0], data["action"], data["task"])
        assert_unchanged(model, before)


def test_constrain_shortens_long_embeddings_and_leaves_the_function_as_it_was(model):
    before, data = snapshot(model), batch()
    with torch.no_grad():
        z = model.encode(data["obs"], data["task"])
    constrain_(model)
    norms = model.task_embedding.weight.norm(dim=1)
    torch.testing.assert_close(norms, torch.ones(len(TASKS)), atol=1e-6, rtol=0)
    with torch.no_grad():
        torch.testing.assert_close(model.encode(data["obs"], data["task"]), z, atol=1e-6, rtol=0)
    del before["task_embedding.weight"]
    for key, value in before.items():
        assert torch.equal(model.state_dict()[key], value), key


def test_constrain_leaves_embeddings_of_admissible_length_alone_to_the_bit():
    torch.manual_seed(0)
    embedding = TaskEmbedding(512, 16)
    embedding.weight.data.normal_(0, 0.25)
    before = embedding.weight.detach().clone()
    short = before.norm(dim=1) <= 1
    assert 50 < short.sum() < 462
    embedding.constrain_()
    assert torch.equal(embedding.weight[short], before[short])
    assert embedding.weight.norm(dim=1).max() < 1 + 1e-6


def test_each_parameter_of_the_world_model_is_in_exactly_one_group(model):
    optimizer = torch.optim.AdamW(WorldModelObjective().parameter_groups(model, WorldModelOptimizer(3e-4, 0.3)))
    check_each_parameter_once(model, optimizer)
    held = [id(p) for group in optimizer.param_groups for p in group["params"]]
    assert sorted(held) == sorted(id(p) for p in model.parameters())
    assert {group["name"]: group["lr"] for group in optimizer.param_groups} == {
        "encoder": pytest.approx(0.9e-4),
        "dynamics": 3e-4,
        "reward": 3e-4,
        "task_embedding": 3e-4,
    }


@pytest.mark.parametrize("dropped", ["encoder", "dynamics", "reward", "task_embedding"])
def test_a_dropped_group_is_found(model, dropped):
    groups = [
        group
        for group in WorldModelObjective().parameter_groups(model, WorldModelOptimizer(3e-4, 0.3))
        if group["name"] != dropped
    ]
    with pytest.raises(LitPWMError, match=r"\(0×\)"):
        check_each_parameter_once(model, torch.optim.AdamW(groups))


def test_a_parameter_held_twice_is_found_by_its_name(model):
    whole = torch.optim.AdamW(WorldModelObjective().parameter_groups(model, WorldModelOptimizer(3e-4, 0.3)))
    again = torch.optim.AdamW([model.reward_head.net[2].bias])
    with pytest.raises(LitPWMError, match=r"heads\.reward\.net\.2\.bias \(2×\)"):
        check_each_parameter_once(model, whole, again)


def test_a_component_that_registers_parameters_elsewhere_is_found(model):
    model.register_parameter("stray", nn.Parameter(torch.zeros(3)))
    with pytest.raises(LitPWMError, match=r"stray \(0×\)"):
        check_each_parameter_once(
            model, torch.optim.AdamW(WorldModelObjective().parameter_groups(model, WorldModelOptimizer(3e-4, 0.3)))
        )


def test_parts_that_do_not_look_at_the_task_can_be_optimised():
    """Their task embedding is a parameter without entries."""
    for part in (MLPActor(16, 2, 3, hidden_dims=(8,)), CriticEnsemble(16, 3, hidden_dims=(8,))):
        optimizer = torch.optim.Adam(part.parameters(), fused=True)
        check_each_parameter_once(part, optimizer)
        part(torch.rand(4, 16), torch.zeros(4, dtype=torch.int64)).sum().backward()
        optimizer.step()
        constrain_(part)
        assert all(p.isfinite().all() for p in part.parameters())


MT30_COUNTS = {"1m": 632_101, "5m": 1_599_717, "19m": 5_603_301, "48m": 18_983_909, "317m": 108_280_805}
MT80_COUNTS = {"1m": 640_741, "5m": 1_650_277, "19m": 6_772_837, "48m": 19_188_581, "317m": 108_347_045}


def count(tasks, obs_dim, size):
    with torch.device("meta"):
        model = WorldModel(
            {f"task-{i}": (obs_dim, 6) for i in range(tasks)},
            partial(MLPDynamics, hidden_dim=size.dynamics_dim),
            latent_dim=size.latent_dim,
            encoder_dim=size.encoder_dim,
            encoder_layers=size.encoder_layers,
            reward_dim=size.reward_dim,
            task_dim=size.task_dim,
        )
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("name", MT30_COUNTS)
def test_sizes_have_tdmpc2s_parameter_counts_for_mt30(name):
    assert count(30, 24, world_model_size(name)) == MT30_COUNTS[name]


@pytest.mark.parametrize("name", MT80_COUNTS)
def test_sizes_have_tdmpc2s_parameter_counts_for_mt80_with_its_two_exceptions(name):
    from dataclasses import replace

    size = replace(world_model_size(name), task_dim=96)
    size = replace(size, latent_dim=768) if name == "19m" else size
    assert count(80, 39, size) == MT80_COUNTS[name]


def test_tiny_is_small_and_every_latent_is_a_multiple_of_the_group():
    assert count(30, 24, world_model_size("tiny")) < 300_000
    assert all(size.latent_dim % 8 == 0 for size in SIZES.values())


def test_an_unknown_size_suggests_the_nearest():
    with pytest.raises(LitPWMError, match="'48m'"):
        world_model_size("48")


def test_bad_dimensions_are_refused():
    with pytest.raises(LitPWMError, match="multiple of 8"):
        WorldModel(TASKS, latent_dim=100)
    with pytest.raises(LitPWMError, match="at least one task"):
        WorldModel({})
    with pytest.raises(LitPWMError, match="named by texts, and b'a'"):
        WorldModel({"b": (3, 1), b"a": (3, 1)})
    with pytest.raises(LitPWMError, match="widest task"):
        WorldModel(TASKS, action_dim=5)
    with pytest.raises(LitPWMError, match="widest task"):
        WorldModel(TASKS, obs_dim=8)


def test_an_untrained_reward_head_decodes_to_zero(model):
    data = batch()
    z = model.encode(data["obs"][:-1], data["task"])
    assert model.reward(z, data["action"], data["task"]).abs().max() < 1e-5


def test_action_mask_comes_from_the_tasks_dimensions(model):
    expected = torch.tensor([[1.0] * 6, [1, 1, 0, 0, 0, 0], [1, 0, 0, 0, 0, 0]])
    torch.testing.assert_close(model.action_mask(), expected)


def test_observation_statistics_standardise_each_task_and_spare_constant_entries(model):
    mean, std = [1.0, 2, 3, 4, 5], [2.0, 0.5, 1e-7, 3, 0.0]
    model.set_observation_statistics({"cartpole-swingup": (mean, std)})
    obs = torch.zeros(2, 24)
    obs[0, :5] = torch.tensor(mean) + torch.tensor([2.0, 0.5, 1, 3, 1])
    plain = torch.zeros(2, 24)
    plain[0, :5] = 1.0
    plain[1] = obs[1]
    task = torch.tensor([2, 0])
    seen = model.encode(obs, task)
    model.set_observation_statistics({"cartpole-swingup": ([0.0] * 5, [1.0] * 5)})
    torch.testing.assert_close(seen, model.encode(plain, task), atol=1e-6, rtol=0)


def test_small_deviations_are_scaled_if_they_are_more_than_rounding(model):
    mean = [0.0, 1.0, 1000.0, 0.0, 0.0, 1000.0, 5.0]
    std = [9e-4, 1e-5, 9e-4, 1e-7, 1e-16, 1e-5, 0.0]
    kept = model.set_observation_statistics({"walker-walk": (mean, std)})
    row = model.task_names.index("walker-walk")
    torch.testing.assert_close(model.obs_std[row, :4], torch.tensor(std[:4]), atol=0, rtol=1e-6)
    assert model.obs_std[row, 4:].unique().tolist() == [1.0]
    assert kept == {"walker-walk": [4, 5]}, "a constant has nothing to be said of"
