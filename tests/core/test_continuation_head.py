"""The continuation head by itself: what it says, what trains it, and what is kept of it."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch

from lit_pwm.errors import LitPWMError
from lit_pwm.losses import WorldModelObjective
from lit_pwm.models import ContinuationHead, MLPDynamics, TwoHotReward, WorldModel, WorldModelOptions
from lit_pwm.models.growing import grow_world_model
from lit_pwm.optim import check_each_parameter_once
from lit_pwm.options.optimizers import WorldModelOptimizer

TASKS = {"falls": (5, 3), "stands": (4, 1), "trips": (5, 2)}


def model_with(heads=None, ends=("falls", "trips"), **options):
    torch.manual_seed(0)
    heads = {"continuation": partial(ContinuationHead, hidden_dim=12)} if heads is None else heads
    model = WorldModel(TASKS, partial(MLPDynamics, hidden_dim=16), 16, 4, heads=heads, encoder_dim=16, **options)
    for p in model.parameters():
        p.data.add_(0.3 * torch.randn_like(p))
    model.know_ends_(dict.fromkeys(ends, True))
    return model


def batch_of(horizon=4):
    """Slices of all three tasks; the first ends after its second transition, and zeros follow."""
    torch.manual_seed(1)
    task = torch.tensor([0, 1, 2, 0, 2])
    terminated = torch.zeros(horizon, 5, dtype=torch.bool)
    terminated[1, 0] = terminated[3, 2] = True
    valid = torch.ones(horizon, 5, dtype=torch.bool)
    valid[2:, 0] = False
    batch = {
        "obs": torch.randn(horizon + 1, 5, 5), "action": torch.rand(horizon, 5, 3), "reward": torch.rand(horizon, 5),
        "task": task, "terminated": terminated, "valid": valid, "consistent": valid,
    }  # fmt: skip
    for name in ("action", "reward"):
        batch[name][2:, 0] = 0
    batch["obs"][3:, 0] = 0
    return batch


def test_c_is_a_probability_and_exactly_one_where_no_episode_ends():
    model = model_with()
    z, action, task = torch.rand(7, 3, 16).softmax(-1), torch.rand(7, 3, 3), torch.tensor([0, 1, 2])
    c = model.continuation(z, action, task)
    assert c.shape == (7, 3)
    assert (c[:, 1] == 1).all()
    ends = c[:, [0, 2]]
    assert ((ends > 0) & (ends < 1)).all()
    head, embedding = model.heads["continuation"], model.task_embedding(task).expand(7, 3, 4)
    expected = head.net(torch.cat([z, embedding, action], -1)).squeeze(-1).sigmoid()
    torch.testing.assert_close(ends, expected[:, [0, 2]])
    assert model.terminating_tasks == ("falls", "trips")


def test_its_loss_is_the_binary_cross_entropy_of_going_on():
    model, batch = model_with(), batch_of()
    head, latents = model.heads["continuation"], torch.rand(4, 5, 16)
    embedding = model.task_embedding(batch["task"])
    loss = head.loss(latents, batch["action"], embedding, batch)
    c = model.continuation(latents, batch["action"], batch["task"]).detach().double().numpy()
    ended = batch["terminated"].numpy()
    with np.errstate(divide="ignore"):
        expected = np.where(ended, -np.log(1 - c), -np.log(c))
    np.testing.assert_allclose(loss.detach().numpy(), expected, rtol=1e-5)
    assert (loss[:, 1] == 0).all(), "a task without ends has c = 1, which is right there"
    assert torch.isfinite(loss).all(), "padding too"
    samples = torch.rand(4, 2, 5, 16)
    several = head.loss(samples, batch["action"][:, None].expand(-1, 2, -1, -1), embedding.expand(2, -1, -1), batch)
    assert several.shape == (4, 2, 5)
    torch.testing.assert_close(several[:, 1], head.loss(samples[:, 1], batch["action"], embedding, batch))


def test_without_labels_everything_goes_on():
    model, batch = model_with(), batch_of()
    del batch["terminated"]
    latents = torch.rand(4, 5, 16)
    loss = model.heads["continuation"].loss(latents, batch["action"], model.task_embedding(batch["task"]), batch)
    c = model.continuation(latents, batch["action"], batch["task"])
    torch.testing.assert_close(loss, -c.log(), rtol=1e-4, atol=1e-6)


def test_extreme_logits_are_finite_and_rare_ends_can_be_told_in_half_precision():
    head = model_with().heads["continuation"]
    logits = torch.tensor([-80.0, -30.0, 8.0, 8.03, 200.0])
    c = head.decode(logits, torch.zeros(5, dtype=torch.int64))
    assert (c > 0).all()
    assert c[2] < c[3] < 1
    assert c[4] == 1
    half = model_with().bfloat16().heads["continuation"]
    z, action, embedding = (torch.rand(5, width, dtype=torch.bfloat16) for width in (16, 3, 4))
    assert half(z, action, embedding).dtype == torch.float32
    double = model_with().double().heads["continuation"]
    assert double(z.double(), action.double(), embedding.double()).dtype == torch.float64


def test_it_has_one_group_a_coefficient_of_one_and_a_loss_of_its_name():
    model, objective = model_with(), WorldModelObjective()
    groups = objective.parameter_groups(model, WorldModelOptimizer(lr=1e-3))
    assert [group["name"] for group in groups] == ["encoder", "dynamics", "reward", "continuation", "task_embedding"]
    assert {group["name"]: group["lr"] for group in groups}["continuation"] == 1e-3
    check_each_parameter_once(model, torch.optim.AdamW(groups))
    parts = objective(model, batch_of())
    assert parts["continuation"] > 0
    total = 20 * parts["consistency"] + 0.1 * parts["reward"] + 1.0 * parts["continuation"]
    torch.testing.assert_close(parts["total"], total)
    assert "continuation_head" in model.parts()
    parts["continuation"].backward()
    for name in ("encoder", "dynamics", "heads.continuation", "task_embedding"):
        assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in model.get_submodule(name).parameters()), name


def test_it_is_built_on_request_and_of_the_rewards_size_by_itself():
    small = partial(TwoHotReward, hidden_dim=24, layers=3)
    options = WorldModelOptions(partial(MLPDynamics, hidden_dim=16), 16, 4, reward=small)
    torch.manual_seed(0)
    without = options.build(TASKS)
    assert without.continuation_head is None
    assert without.terminating_tasks == ()
    torch.manual_seed(0)
    model = options.build(TASKS, continuation=True)
    assert model.continuation_head.init_args == {"hidden_dim": 24, "layers": 3}
    for name, value in without.state_dict().items():
        assert torch.equal(model.state_dict()[name], value), "the head is drawn last"
    z, action = torch.rand(2, 16), torch.rand(2, 3)
    model.know_ends_({"falls": True})
    assert (model.continuation(z, action, torch.tensor([0, 1])) == torch.tensor([0.5, 1.0])).all(), "untrained"
    named = WorldModelOptions(heads={"continuation": partial(ContinuationHead, hidden_dim=8)}, latent_dim=16)
    assert named.build(TASKS, continuation=True).continuation_head.hidden_dim == 8
    rebuilt = WorldModel.from_description(model.description())
    rebuilt.load_state_dict(model.state_dict())
    assert rebuilt.terminating_tasks == ("falls",)


def test_a_new_task_begins_as_its_source_knows_it():
    model = model_with()
    grown = grow_world_model(model, {"hops": "trips", "sits": "stands"}, {"hops": (3, 1), "sits": (5, 3)})
    assert grown.terminating_tasks == ("falls", "trips", "hops")
    z, action = torch.rand(4, 16), torch.rand(4, 3)
    of = {name: number for number, name in enumerate(grown.tasks)}
    said = [grown.continuation(z, action, torch.tensor(of[name])) for name in ("hops", "trips", "sits")]
    assert torch.equal(said[0], said[1])
    assert (said[2] == 1).all()


def test_what_cannot_be_is_refused():
    with pytest.raises(LitPWMError, match=r"'ends', made by ContinuationHead.*called 'continuation'"):
        model_with({"ends": ContinuationHead}, ends=())
    with pytest.raises(LitPWMError, match="continuation"):
        model_with({"continuation": {"class_path": "lit_pwm.models.TwoHotReward"}}, ends=())
    with pytest.raises(LitPWMError, match=r"'continuation', made by TwoHotReward"):
        model_with({"continuation": TwoHotReward}, ends=())
    with pytest.raises(LitPWMError, match=r"no continuation head.*heads\.continuation"):
        model_with({}, ends=()).continuation(torch.rand(2, 16), torch.rand(2, 3), torch.tensor([0, 1]))
