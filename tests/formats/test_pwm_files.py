"""PWM's and Flow-MBPO-PWM's own files: the same outputs, the same file again, refusals by name.

The files in `pwm_files` were written by the two projects' code (`save`, and the script of pre-training) for tiny
networks of random weights, with the outputs that this code gave: encoded latents, five open-loop steps, logits of
rewards at each, decoded rewards, the actor's mean before tanh and the critics' values.
"""

from __future__ import annotations

import os
import random
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch

from datamodules import EpisodeStore
from datamodules.collecting import collect
from lit_pwm.checkpoints import convert, load_policy, load_world_model
from lit_pwm.checkpoints.formats import FOREIGN_KEY, format_named, read_any
from lit_pwm.checkpoints.formats.inert_objects import STUBS
from lit_pwm.checkpoints.inspection import inspect_checkpoint
from lit_pwm.cli.main import run
from lit_pwm.errors import LitPWMError
from lit_pwm.flow import FixedStep
from lit_pwm.models import legacy_flow_dynamics
from lit_pwm.models.legacy_flow_dynamics import LegacyFlowDynamics

FILES = Path(__file__).parent / "pwm_files"
TASKS = ["walker-walk", "cup-catch", "cheetah-run"]
NAMES = {
    "pwm_training": TASKS,
    "pwm_single_task": ["walker-walk"],
    "flow_mbpo_training": TASKS,
    "flow_mbpo_flow_training": TASKS,
    "flow_mbpo_flow_actor": TASKS,
    "flow_mbpo_pretraining": None,
    "flow_mbpo_flow_pretraining": None,
}
POLICIES = ("pwm_training", "pwm_single_task", "flow_mbpo_training", "flow_mbpo_flow_training")


def outputs(name):
    with np.load(FILES / f"{name}_outputs.npz", allow_pickle=False) as file:
        return {key: torch.from_numpy(np.asarray(file[key])) for key in file.files}


def raw(name):
    with torch.serialization.safe_globals([*STUBS]):
        return torch.load(FILES / f"{name}.pt", weights_only=True)


def refused(path, tasks=TASKS, load=load_world_model):
    with pytest.raises(LitPWMError) as caught:
        load(path, tasks=tasks)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_outputs_are_the_references(name):
    expected = outputs(name)
    model = load_world_model(FILES / f"{name}.pt", tasks=NAMES[name])
    tolerance = {"atol": 1e-3 if "_flow_" in name and "actor" not in name else 1e-4, "rtol": 0}
    task, z = expected["task"], expected["z0"]
    torch.testing.assert_close(model.encode(expected["obs"], task), z, **tolerance)
    for action, logits, following in zip(
        expected["actions"], expected["reward_logits"], expected["next_z"], strict=True
    ):
        torch.testing.assert_close(model.reward_logits(z, action, task), logits, **tolerance)
        z = model.next(z, action, task)
        torch.testing.assert_close(z, following, **tolerance)
    latents, rewards = model.rollout(expected["z0"], expected["actions"], task)
    torch.testing.assert_close(latents[1:], expected["next_z"], **tolerance)
    torch.testing.assert_close(rewards, expected["reward"][..., 0], **tolerance)


@pytest.mark.parametrize("name", POLICIES)
@torch.no_grad()
def test_actor_and_critics_give_the_references_outputs(name):
    expected = outputs(name)
    policy = load_policy(FILES / f"{name}.pt", tasks=NAMES[name])
    task, z = expected["task"], expected["z0"]
    mask = policy.world_model.action_mask()[task]
    actions = policy.actor(z, task, deterministic=True)
    torch.testing.assert_close(actions, mask * expected["actor_mean_pretanh"].tanh(), atol=1e-4, rtol=0)
    for critics in (policy.critic, policy.target_critic):
        torch.testing.assert_close(critics(z, task), expected["critic_values"], atol=1e-4, rtol=0)
    noise = torch.ones(len(task), policy.world_model.action_dim)
    spread = raw(name)["actor"]["logstd"].exp()
    drawn = policy.actor(z, task, noise=noise)
    torch.testing.assert_close(drawn, mask * (expected["actor_mean_pretanh"] + spread).tanh(), atol=1e-4, rtol=0)


def same(found, wanted, place="file"):
    assert type(found) is type(wanted), place
    if isinstance(wanted, torch.Tensor):
        assert (found.dtype, found.shape) == (wanted.dtype, wanted.shape), place
        assert found.numpy().tobytes() == wanted.numpy().tobytes(), place
    elif isinstance(wanted, dict):
        assert list(found) == list(wanted), place
        for key in wanted:
            same(found[key], wanted[key], f"{place}[{key!r}]")
    else:
        assert found == wanted, place


@pytest.mark.parametrize("name", NAMES)
def test_a_file_comes_back_as_it_was_but_for_moments_and_statistics(name, tmp_path):
    native = read_any(FILES / f"{name}.pt", NAMES[name])
    torch.save(native, tmp_path / "native.ckpt")  # plain: nothing of PWM's classes is in it
    again = read_any(tmp_path / "native.ckpt")
    form, wanted = format_named(native[FOREIGN_KEY]["format"]), raw(name)
    lost = [key for key, value in wanted.items() if key.endswith("_rms") and value is not None]
    if lost:
        with pytest.raises(LitPWMError, match=f"{lost[0]}.*--partial"):
            form.write(again, "native.ckpt")
        held = again[FOREIGN_KEY]["layout"]["statistics"][lost[0]]
        assert torch.equal(held["mean"], vars(wanted[lost[0]])["mean"])
        assert held["count"] == vars(wanted[lost[0]])["count"]
    found = form.write(again, "native.ckpt", partial=bool(lost))
    for key in wanted:
        if key.endswith("_opt"):
            wanted[key] = wanted[key] | {"state": {}}
        if key in lost:
            wanted[key] = None
    same(found, wanted)


def test_a_policy_goes_from_one_project_to_the_other_and_back_with_the_same_bits():
    native = read_any(FILES / "flow_mbpo_training.pt", TASKS)
    as_pwm = format_named("pwm").write(native, "x", partial=True)
    wanted = raw("flow_mbpo_training")
    assert list(as_pwm) == list(wanted)[:9]
    assert list(as_pwm) == list(raw("pwm_training"))
    for part in ("actor", "critic", "world_model"):
        same(as_pwm[part], wanted[part], part)
    assert [len(as_pwm[f"{part}_opt"]["param_groups"][0]["params"]) for part in ("actor", "critic")] == [
        len(wanted[part]) for part in ("actor", "critic")
    ]


def test_optimizers_of_a_written_file_are_those_that_pwm_loads():
    native = read_any(FILES / "pwm_training.pt", TASKS)
    del native[FOREIGN_KEY]
    found = format_named("pwm").write(native, "x")
    weights = found["world_model"]
    groups = [[], [], [], []]
    for key, value in weights.items():
        number = next((n for n, part in enumerate(("_encoder", "_dynamics", "_reward")) if key.startswith(part)), None)
        if number is not None:
            groups[number].append(torch.nn.Parameter(value))
    optimizer = torch.optim.Adam([{"params": group} for group in groups], 1e-3)
    optimizer.load_state_dict(found["world_model_opt"])
    critics = torch.optim.Adam([torch.nn.Parameter(value) for value in found["critic"].values()])
    critics.load_state_dict(found["critic_opt"])
    assert critics.param_groups[0]["lr"] == 5e-4


def test_a_world_model_of_ours_becomes_a_file_of_pre_training_that_reads_the_same(tmp_path):
    native = read_any(FILES / "flow_mbpo_flow_pretraining.pt")
    del native[FOREIGN_KEY]
    written = format_named("flow-mbpo").write(native, "x")
    torch.save(written, tmp_path / "again.pt")
    again = read_any(tmp_path / "again.pt")
    assert again["lit_pwm"] == native["lit_pwm"]
    for key, value in native["state_dict"].items():
        assert torch.equal(again["state_dict"][key], value), key
    with pytest.raises(LitPWMError, match=r"LegacyFlowDynamics.*PWM's training format.*MLPDynamics"):
        format_named("pwm").write(native, "x", partial=True)
    plain = read_any(FILES / "flow_mbpo_pretraining.pt")
    with pytest.raises(LitPWMError, match=r"holds no actor and no critic.*--partial"):
        format_named("pwm").write(plain, "x")
    assert "actor" not in format_named("pwm").write(plain, "x", partial=True)


def test_the_flows_integrator_is_that_of_the_files_config(tmp_path, capsys):
    name = "flow_mbpo_flow_pretraining"
    model = load_world_model(FILES / f"{name}.pt")
    assert model.dynamics.solver == FixedStep(
        "euler", 8
    )  # and not those of the policy's flow, which the config has too
    content, expected = raw(name), outputs(name)
    content["cfg"] = {"note": "nothing"}
    torch.save(content, tmp_path / "silent.pt")
    capsys.readouterr()
    silent = load_world_model(tmp_path / "silent.pt")
    assert "flow_integrator and flow_substeps" in capsys.readouterr().err
    assert silent.dynamics.solver == FixedStep("heun", 4)
    with torch.no_grad():
        latents, _ = silent.rollout(expected["z0"], expected["actions"], expected["task"])
    torch.testing.assert_close(latents[1:], expected["next_z_heun4"], atol=1e-3, rtol=0)
    for option, value in (("flow_integrator", "rk4"), ("flow_substeps", 0), ("flow_substeps", "4")):
        content["cfg"] = {"alg": {option: value}}
        torch.save(content, tmp_path / "odd.pt")
        assert option in refused(tmp_path / "odd.pt", None)


def test_the_legacy_flow_warns_once_and_leaves_the_simplex(caplog, monkeypatch):
    monkeypatch.setattr(legacy_flow_dynamics, "_told", set())
    dynamics = LegacyFlowDynamics(16, 2, 3, hidden_dim=8)
    LegacyFlowDynamics(16, 2, 3, hidden_dim=8)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "Flow-MBPO-PWM" in caplog.text
    z = torch.full((4, 16), 1 / 8)
    following = dynamics(z, torch.zeros(4, 2), torch.zeros(4, 3))
    torch.testing.assert_close(following.unflatten(-1, (-1, 8)).sum(-1), torch.full((4, 2), 2.0))


@pytest.mark.parametrize(
    ("key", "change", "said"),
    [
        ("world_model", lambda part: part.pop("_reward.0.ln.bias"), r"'_reward\.0\.ln\.bias' .* missing"),
        ("world_model", lambda part: part.update({"_termination.0.weight": torch.zeros(2)}), "extra"),
        ("world_model", lambda part: part.update({"_dynamics.1.bias": torch.zeros(5)}), r"shape \[5\]"),
        ("actor", lambda part: part.update({"mu_net.3.bias": torch.zeros(5)}), r"actor\.mu_net\.3\.bias.*shape \[5\]"),
        ("actor", lambda part: part.pop("logstd"), r"actor\.logstd.*missing"),
        ("actor", lambda part: part.update({"mu_nett.0.bias": part.pop("mu_net.0.bias")}), r"actor\.mu_net\.0\.bias"),
        ("critic", lambda part: part.pop("params.3"), r"critic\.params\.3.*missing"),
        ("critic", lambda part: part.update({"params.0": torch.zeros(3)}), r"critic\.params\.0.*shape \[3\]"),
        ("critic", lambda part: part.update({7: torch.zeros(3)}), "extra"),
    ],
)
def test_a_key_that_is_missing_extra_or_misshapen_is_named(key, change, said, tmp_path):
    content = raw("pwm_single_task")
    content[key] = dict(content[key])
    change(content[key])
    torch.save(content, tmp_path / "wrong.pt")
    with pytest.raises(LitPWMError, match=said):
        load_world_model(tmp_path / "wrong.pt", tasks="walker-walk")


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("critic", 3, "holds a int for 'critic'"),
        ("ret_rms", torch.zeros(2), "'ret_rms'"),
        ("note", {1.5: 2}, "'note'"),
    ],
)
def test_an_entry_that_is_something_else_is_named(name, value, said, tmp_path):
    torch.save(raw("pwm_single_task") | {"ret_rms": None, name: value}, tmp_path / "wrong.pt")
    assert said in refused(tmp_path / "wrong.pt", "walker-walk")


def test_a_file_without_an_mlp_actor_is_refused_where_a_policy_is_needed_and_read_where_a_world_model_is(tmp_path):
    assert "flow actor" in refused(FILES / "flow_mbpo_flow_actor.pt", load=load_policy)
    assert "without an actor" in refused(FILES / "flow_mbpo_pretraining.pt", None, load=load_policy)
    content = raw("pwm_single_task")
    content["actor"] = {"actor.0.weight": torch.zeros(2, 2)}
    torch.save(content, tmp_path / "deterministic.pt")
    assert "'actor.0.weight'" in refused(tmp_path / "deterministic.pt", "walker-walk", load=load_policy)
    assert load_world_model(tmp_path / "deterministic.pt", tasks="walker-walk").latent_dim == 16


def test_networks_that_are_others_than_they_look_are_refused(tmp_path):
    content = raw("flow_mbpo_pretraining")
    for said, config in (
        ("vmax", {"vmax": 5.0}),
        ("simnorm_dim", {"dynamics": {"last_layer_kwargs": {"act": {"simnorm_dim": 4}}}}),
    ):
        content["cfg"] = {"alg": {"world_model_config": config}}
        torch.save(content, tmp_path / "other.pt")
        assert said in refused(tmp_path / "other.pt", None)
    content = raw("pwm_single_task")
    content["world_model"]["_reward.2.weight"] = torch.zeros(1, 24)
    content["world_model"]["_reward.2.bias"] = torch.zeros(1)
    torch.save(content, tmp_path / "one.pt")
    assert "num_bins" in refused(tmp_path / "one.pt", "walker-walk")


def test_a_single_tasks_flow_whose_inputs_are_padded_is_refused(tmp_path):
    content = raw("flow_mbpo_flow_pretraining")
    weights = dict(content["world_model"])
    del weights["_task_emb.weight"]
    torch.save({"world_model": weights}, tmp_path / "single.pt")
    assert "single task" in refused(tmp_path / "single.pt", "walker-walk")


def test_tasks_of_a_policy_are_named_as_those_of_a_model_or_alone(tmp_path):
    path = FILES / "pwm_training.pt"
    assert load_policy(path, tasks=TASKS).trained_tasks == tuple(TASKS)
    assert "3 tasks" in refused(path, None, load=load_policy)
    assert "3 tasks" in refused(path, "walker-walk", load=load_policy)
    content = raw("pwm_training") | {"ret_rms": None}
    weights = content["world_model"]
    weights["_task_emb.weight"] = weights["_task_emb.weight"].repeat(10, 1)
    torch.save(content, tmp_path / "mt30.pt")
    policy = load_policy(tmp_path / "mt30.pt", tasks="walker-run")
    assert policy.trained_tasks == ("walker-run",)
    assert len(policy.task_names) == 30
    assert load_policy(tmp_path / "mt30.pt", acting_in=["walker-run"]).trained_tasks == ("walker-run",)
    assert load_policy(tmp_path / "mt30.pt").trained_tasks == ()
    assert "walker-rum" in refused(tmp_path / "mt30.pt", "walker-rum", load=load_policy)
    assert "names its own tasks" in refused(FILES / "flow_mbpo_pretraining.pt", ["a", "b", "c"])


class Executes:
    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        return os.system, (f"touch {self.trace}",)


@pytest.fixture
def saved_statistics(monkeypatch):
    """Makes objects that are pickled under the name of PWM's class."""
    place = "pwm.utils.running_mean_std"
    made = type("RunningMeanStd", (), {"__module__": place})
    for number in range(1, 4):
        name = ".".join(place.split(".")[:number])
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    sys.modules[place].RunningMeanStd = made

    def make(**held):
        found = made()
        vars(found).update(held)
        return found

    return make


@pytest.mark.parametrize("place", ["entry", "in statistics"])
def test_hostile_objects_run_nothing(place, saved_statistics, tmp_path):
    content, trace = raw("pwm_single_task"), tmp_path / "executed"
    numbers = {"mean": torch.zeros(1), "var": torch.ones(1), "count": 1.0}
    content["ret_rms"] = saved_statistics(**numbers)
    torch.save(content, tmp_path / "whole.pt")
    assert load_world_model(tmp_path / "whole.pt", tasks="walker-walk").latent_dim == 16
    if place == "entry":
        content["iter"] = Executes(trace)
    else:
        content["ret_rms"] = saved_statistics(**numbers | {"mean": Executes(trace)})
    torch.save(content, tmp_path / "hostile.pt")
    assert "system" in refused(tmp_path / "hostile.pt", "walker-walk")
    assert not trace.exists()


def test_numbers_of_numpys_are_read_as_numbers(tmp_path):
    """Flow-MBPO-PWM's best reward is numpy's mean of returns."""
    content = raw("flow_mbpo_flow_training") | {"best_reward": np.float64(512.25), "mean_horizon": np.float32(16.1)}
    content["step_count"] = [np.int64(-7), np.bool_(True)]
    torch.save(content, tmp_path / "best.pt")
    native = read_any(tmp_path / "best.pt", TASKS)
    values = native[FOREIGN_KEY]["layout"]["values"]
    assert type(values["best_reward"]) is float
    assert (values["best_reward"], values["mean_horizon"]) == (512.25, float(np.float32(16.1)))
    assert values["step_count"] == [-7, True]
    torch.save(native, tmp_path / "native.ckpt")
    assert torch.load(tmp_path / "native.ckpt", weights_only=True)[FOREIGN_KEY]["layout"]["values"] == values
    content["best_reward"] = np.str_("text")
    torch.save(content, tmp_path / "odd.pt")
    assert "'best_reward'" in refused(tmp_path / "odd.pt")


ODD = [
    *(None, 3, -1, 0.5, "x", [], [1], {}, {1: 2}, True, float("nan")),
    *(torch.zeros(shape) for shape in ((), (0,), (2, 0), (3,), (2, 3), (2, 3, 4))),
    *(torch.zeros(3, dtype=torch.int64), torch.zeros(2, 3).to_sparse(), torch.Size([3])),
]


@pytest.mark.parametrize("name", NAMES)
def test_a_damaged_file_never_ends_in_another_exception(name, tmp_path):
    draw, told = random.Random(name), []
    for _ in range(8):
        content = {key: dict(value) if isinstance(value, dict) else value for key, value in raw(name).items()}
        content |= {key: None for key in content if key.endswith("_rms")}
        for _ in range(draw.choice([1, 1, 2])):
            top = draw.choice(list(content))
            place = content[top] if isinstance(content[top], dict) and content[top] and draw.random() < 0.7 else content
            key = draw.choice(list(place))
            if draw.random() < 0.3:
                place[draw.choice([7, "x", f"{key}z"])] = place.pop(key)
            else:
                place[key] = draw.choice(ODD)
        torch.save(content, tmp_path / "damaged.pt")
        for load in (load_policy, inspect_checkpoint):
            arguments = {"tasks": NAMES[name]} if load is load_policy else {}
            try:
                load(tmp_path / "damaged.pt", **arguments)
            except LitPWMError as error:
                told.append(str(error))
    assert told
    assert all("damaged.pt" in text and "\n" not in text for text in told)


def test_statistics_that_hold_something_else_are_named(saved_statistics, tmp_path):
    content = raw("pwm_single_task")
    for held in ({}, {"mean": "none", "var": 1.0, "count": 2.0}):
        torch.save(content | {"obs_rms": saved_statistics(**held)}, tmp_path / "odd.pt")
        assert "'obs_rms'" in refused(tmp_path / "odd.pt", "walker-walk")
    torch.save(content | {"note": saved_statistics(mean=1.0)}, tmp_path / "elsewhere.pt")
    assert "'note'" in refused(tmp_path / "elsewhere.pt", "walker-walk")


def test_a_policy_that_does_not_say_its_task_collects_it(tmp_path):
    """As it is evaluated: the tasks that are asked for are its own."""
    file, task = FILES / "pwm_single_task.pt", "walker-walk"
    argv = ["collect", "--tasks", task, "--episodes", "1", "--workers", "1", "--behaviour", str(file)]
    assert run([*argv, "--out", str(tmp_path / "own.h5")]) == 0
    native = convert(file, "native", tmp_path / "native.ckpt", tasks=[task])
    same_policy = collect([task], 1, tmp_path / "native.h5", behaviour=str(native), workers=1, progress=False)
    assert np.array_equal(EpisodeStore(tmp_path / "own.h5")[0].action, same_policy[0].action)


def test_a_policy_of_other_tasks_than_those_that_are_to_be_collected_is_refused(tmp_path, capsys):
    argv = ["collect", "--episodes", "1", "--behaviour", str(FILES / "pwm_training.pt")]
    for tasks in (["walker-walk"], [*TASKS, "finger-spin"]):
        assert run([*argv, "--tasks", ",".join(tasks), "--out", str(tmp_path / "o.h5")]) == 2
        assert "3 tasks" in " ".join(capsys.readouterr().err.split())
    assert list(tmp_path.iterdir()) == []
