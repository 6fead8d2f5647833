"""Policies and a short task for the tests: a real, untrained network policy, and one that tells what it was asked."""

import sys
from functools import partial

import numpy as np
import pytest
import torch

from lit_pwm.models import MLPActor, MLPDynamics, WorldModel
from lit_pwm.models.policy import Policy
from lit_pwm.tasks import TaskSpec, register, registry, task_spec


def make_network_policy(*tasks, latent_dim=72, encoder_dim=100, hidden_dims=(50, 30)):
    """A policy of random weights. With these widths a row's rounding depends on the row, which widths of 16 n hide."""
    torch.manual_seed(0)
    dims = {task: (task_spec(task).obs_dim, task_spec(task).action_dim) for task in tasks}
    dynamics = partial(MLPDynamics, hidden_dim=16)
    world_model = WorldModel(
        dims, dynamics, latent_dim, encoder_dim=encoder_dim, encoder_layers=2, reward_dim=16, task_dim=8
    )
    actor = MLPActor(latent_dim, world_model.action_dim, len(tasks), hidden_dims=hidden_dims)
    with torch.no_grad():
        actor.mean.weight.mul_(3)  # actions that depend on the state, but seldom saturate
    return Policy(world_model, actor, tuple(tasks)).eval()


class ConstantPolicy:
    """The same action always; keeps the shapes of what it was given."""

    def __init__(self, action, task_names):
        self.action, self.task_names, self.seen = np.asarray(action, np.float32), tuple(task_names), []

    def act(self, obs, task, deterministic=True):
        self.seen.append((obs.shape, obs.dtype, task, deterministic))
        return np.tile(self.action, (len(obs), 1))


@pytest.fixture(scope="session")
def network_policy():
    """Makes a policy for some tasks."""
    return make_network_policy


@pytest.fixture(scope="session")
def constant_policy():
    """Makes a policy from its one action and the tasks it claims."""
    return ConstantPolicy


SPIN = """
from dm_control import mujoco
from dm_control.rl import control
from dm_control.suite import base
from dm_control.utils import containers

SUITE = containers.TaggedTasks()
XML = \"\"\"<mujoco><option timestep="0.01"/><worldbody><body><joint name="hinge" type="hinge" damping="0.01"/>
<geom type="capsule" fromto="0 0 0 .3 0 0" size=".05"/></body></worldbody>
<actuator><motor joint="hinge" ctrlrange="-1 1" ctrllimited="true" gear="0.3"/></actuator></mujoco>\"\"\"


class Spin(base.Task):
    def initialize_episode(self, physics):
        physics.named.data.qpos["hinge"] = self.random.uniform(0, 1)

    def get_observation(self, physics):
        return {"angle": physics.data.qpos.copy(), "speed": physics.data.qvel.copy()}

    def get_reward(self, physics):
        return 1.0

    def get_termination(self, physics):
        return 0.0 if physics.data.qpos[0] > 1.5 else None


@SUITE.add()
def spin(random=None, environment_kwargs=None):
    return control.Environment(mujoco.Physics.from_xml_string(XML), Spin(random), control_timestep=0.01)
"""


@pytest.fixture
def short_task(tmp_path, monkeypatch):
    """A task of one's own, of at most 60 steps, which terminates once a hinge has turned far enough."""
    package = tmp_path / "suite_of_short_tasks"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "hinge.py").write_text(SPIN)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(registry, "_SPECS", dict(registry._SPECS))
    register(TaskSpec("hinge-spin", "hinge", "spin", 2, 1, episode_length=60, suite=package.name))
    yield "hinge-spin"
    for name in (package.name, f"{package.name}.hinge"):
        sys.modules.pop(name, None)
