"""A policy written as a graph acts as the original does, for any number of rows, in every task, without lit_pwm."""

import json
import subprocess
import sys
from functools import partial

import numpy as np
import pytest
import torch

from lit_pwm.checkpoints.export_policy import TOLERANCE, export_policy
from lit_pwm.checkpoints.exported_policy import FORMATS
from lit_pwm.errors import LitPWMError
from lit_pwm.flow import Dopri5, FixedStep
from lit_pwm.models import FlowActor, MLPActor, MLPDynamics, Policy, WorldModel

TASKS = {"walker-walk": (24, 6), "cup-catch": (8, 2), "pendulum-swingup": (3, 1)}
ACTORS = {
    "mlp": partial(MLPActor, hidden_dims=(32, 16), task_dim=4),
    "flow": partial(FlowActor, hidden_dims=(32, 16), task_dim=4, form="gated", solver=FixedStep("rk4", 2)),
}


def make_policy(actor):
    """Networks that were not trained, but whose actions differ from each other as those of trained ones do."""
    torch.manual_seed(0)
    world_model = WorldModel(TASKS, partial(MLPDynamics, hidden_dim=16), latent_dim=32, task_dim=4)
    made = actor(32, 6, 3)
    made.set_action_mask(world_model.action_mask())
    rng = np.random.default_rng(0)
    world_model.set_observation_statistics(
        {
            name: (rng.normal(0, 5, dims[0]).tolist(), rng.uniform(0.1, 9, dims[0]).tolist())
            for name, dims in TASKS.items()
        }
    )
    with torch.no_grad():
        for part in (world_model, made):
            for parameter in part.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.2)
    return Policy(world_model, made, tuple(TASKS)).eval()


def observations(policy, task, count=1000):
    row, width = policy.task_names.index(task), TASKS[task][0]
    mean, std = (values[row, :width].numpy() for values in (policy.world_model.obs_mean, policy.world_model.obs_std))
    return (mean + std * np.random.default_rng(row + 10).normal(size=(count, width))).astype(np.float32)


def needs(to):
    for package in FORMATS[to]:
        pytest.importorskip(package, reason=f"{package} is not installed: pip install 'lit-pwm[onnx]'")


@pytest.mark.parametrize("to", FORMATS)
@pytest.mark.parametrize("actor", ACTORS)
def test_actions_are_equal_on_a_thousand_observations_of_each_task(to, actor, tmp_path):
    needs(to)
    policy, before = make_policy(ACTORS[actor]), torch.get_rng_state()
    weights = {key: value.clone() for key, value in policy.state_dict().items()}
    exported, differences = export_policy(policy, to, tmp_path / "policy.out")
    assert set(differences) == set(TASKS)
    assert exported.task_names == policy.task_names
    for task in TASKS:
        obs = observations(policy, task)
        expected, found = policy.act(obs, task), exported.act(obs, task)
        assert found.dtype == np.float32
        assert np.abs(expected).mean() > 0.05
        assert expected.std(0).min() > 200 * TOLERANCE  # so that equality says something
        assert np.abs(found - expected).max() < 1e-5
        for rows in (1, 2, 7):  # the batch is a dimension of its own
            assert np.abs(exported.act(obs[:rows], task) - expected[:rows]).max() < 1e-5
    for key, value in policy.state_dict().items():
        assert torch.equal(value, weights[key]), key
    assert torch.equal(before, torch.get_rng_state())
    assert [path.name for path in tmp_path.iterdir()] == ["policy.out"]


def test_a_file_of_torch_export_needs_no_lit_pwm(tmp_path):
    policy = make_policy(partial(FlowActor, hidden_dims=(32, 16), solver=FixedStep("euler", 4)))
    export_policy(policy, "torch-export", tmp_path / "policy.pt2")
    obs = np.concatenate([observations(policy, "cup-catch"), np.zeros((1000, 16), np.float32)], 1)
    np.save(tmp_path / "obs.npy", obs)
    script = (
        "import json, sys, numpy, torch; extra = {'lit_pwm.json': ''}; "
        "program = torch.export.load('policy.pt2', extra_files=extra); "
        "known = json.loads(extra['lit_pwm.json']); obs = torch.from_numpy(numpy.load('obs.npy')); "
        "task = torch.full((1000,), known['task_names'].index('cup-catch')); "
        "numpy.save('action.npy', program.module()(obs, task).detach().numpy()); "
        "json.dump({'known': known, 'modules': [m for m in sys.modules if m.startswith('lit_pwm')]}, open('out', 'w'))"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", script], check=True, cwd=tmp_path)
    found, action = json.loads((tmp_path / "out").read_text()), np.load(tmp_path / "action.npy")
    assert found["modules"] == []
    assert found["known"]["tasks"]["cup-catch"] == {"obs_dim": 8, "action_dim": 2}
    assert np.abs(action[:, :2] - policy.act(obs[:, :8], "cup-catch")).max() < 1e-5
    assert (action[:, 2:] == 0).all()


def test_what_acting_does_not_need_is_not_in_the_file(tmp_path):
    policy = make_policy(ACTORS["mlp"])
    export_policy(policy, "torch-export", tmp_path / "policy.pt2")
    held = torch.export.load(tmp_path / "policy.pt2").state_dict
    assert not [key for key in held if "dynamics" in key or "heads" in key]
    assert "world_model.obs_mean" in held


@pytest.mark.parametrize("to", FORMATS)
def test_an_adaptive_solver_is_refused(to, tmp_path):
    needs(to)
    policy = make_policy(partial(FlowActor, hidden_dims=(16,), solver=Dopri5()))
    with pytest.raises(LitPWMError, match=r"FlowActor.*Dopri5, an adaptive solver.*FixedStep"):
        export_policy(policy, to, tmp_path / "policy.out")
    assert list(tmp_path.iterdir()) == []


class HostActor(MLPActor):
    """Looks at a number on the host, which no graph can."""

    def forward(self, z, task, deterministic=False, noise=None):
        return super().forward(z * 2 if z.sum().item() > 1e9 else z, task, deterministic, noise)


def test_an_actor_that_reads_values_is_refused_by_name(tmp_path):
    with pytest.raises(LitPWMError, match=r"MLPEncoder and HostActor cannot be traced"):
        export_policy(make_policy(partial(HostActor, hidden_dims=(16,))), "torch-export", tmp_path / "policy.pt2")
    assert list(tmp_path.iterdir()) == []


def test_a_policy_that_acts_otherwise_is_not_written(tmp_path):
    with pytest.raises(LitPWMError, match=r"other actions.*1e-12 is allowed.*not written.*--tolerance"):
        export_policy(make_policy(ACTORS["mlp"]), "torch-export", tmp_path / "policy.pt2", tolerance=1e-12)
    assert list(tmp_path.iterdir()) == []
    assert TOLERANCE == 1e-5


def test_an_unknown_format_and_missing_packages_are_said(tmp_path, monkeypatch):
    policy = make_policy(ACTORS["mlp"])
    with pytest.raises(LitPWMError, match=r"'onx'.*onnx"):
        export_policy(policy, "onx", tmp_path / "policy.onnx")
    monkeypatch.setitem(FORMATS, "onnx", ("a_package_that_is_not_there",))
    with pytest.raises(LitPWMError, match=r"needs a_package_that_is_not_there.*lit-pwm\[onnx\].*torch-export"):
        export_policy(policy, "onnx", tmp_path / "policy.onnx")
