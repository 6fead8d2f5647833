"""`lit_pwm.load_policy` and `lit_pwm.load_world_model`: what a notebook or a robot gets from a file."""

import subprocess
import sys
from functools import partial

import numpy as np
import pytest
import torch

import lit_pwm
from lit_pwm.checkpoints import DESCRIPTION_KEY, describe_policy
from lit_pwm.models import CriticEnsemble, MLPActor, MLPDynamics, WorldModel

TASKS = {"walker-walk": (24, 6), "cup-catch": (8, 2)}


@pytest.fixture
def networks():
    torch.manual_seed(0)
    world_model = WorldModel(TASKS, partial(MLPDynamics, hidden_dim=16), latent_dim=16, task_dim=4)
    averaged_actor = MLPActor(16, 6, 2, hidden_dims=(12,), task_dim=3)
    averaged_actor.set_action_mask(world_model.action_mask())
    makes = partial(CriticEnsemble, 16, 2, hidden_dims=(12,), task_dim=3)
    return {
        "world_model": world_model, "averaged_actor": averaged_actor, "critic": makes(), "target_critic": makes()
    }  # fmt: skip


def saved(path, networks, leave_out=()):
    weights = {
        f"{name}.{key}": value
        for name, network in networks.items()
        if name not in leave_out
        for key, value in network.state_dict().items()
    }
    description = describe_policy(
        networks["world_model"], networks["averaged_actor"], networks["critic"], ["cup-catch"]
    )
    torch.save({"state_dict": weights, DESCRIPTION_KEY: description}, path)
    return path


def test_a_policy_brings_its_critics_and_their_target_network(networks, tmp_path):
    policy = lit_pwm.load_policy(saved(tmp_path / "policy.ckpt", networks))
    assert policy.task_names == ("walker-walk", "cup-catch")
    z, task = policy.world_model.encode(torch.randn(5, 24), torch.tensor(1)), torch.ones(5, dtype=torch.int64)
    for name in ("critic", "target_critic"):
        found, expected = getattr(policy, name), networks[name].eval()
        assert torch.equal(found(z, task), expected(z, task)), name
        assert not found.training
    assert not torch.equal(policy.critic(z, task), policy.target_critic(z, task))
    obs = np.random.default_rng(0).normal(size=(5, 8)).astype(np.float32)
    assert policy.act(obs, "cup-catch").shape == (5, 2)


@pytest.mark.parametrize("missing", [("critic",), ("target_critic",), ("critic", "target_critic")])
def test_critics_that_a_file_does_not_hold_are_none(networks, tmp_path, missing):
    policy = lit_pwm.load_policy(saved(tmp_path / "policy.ckpt", networks, missing))
    for name in ("critic", "target_critic"):
        assert (getattr(policy, name) is None) == (name in missing)


def test_critics_of_another_size_are_refused(networks, tmp_path):
    path = saved(tmp_path / "policy.ckpt", networks)
    content = torch.load(path, weights_only=True)
    content["state_dict"]["critic.net.0.weight"] = torch.zeros(3, 5, 12)
    torch.save(content, path)
    with pytest.raises(lit_pwm.LitPWMError, match=r"policy\.ckpt.*net\.0\.weight"):
        lit_pwm.load_policy(path)


def test_the_loaders_are_public_and_lazy():
    script = (
        "import sys, lit_pwm; assert {'load_policy', 'load_world_model'} <= set(lit_pwm.__all__); "
        "assert 'torch' not in sys.modules; lit_pwm.load_policy, lit_pwm.load_world_model; "
        "assert 'torch' in sys.modules and 'lightning' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
