"""Policies that are saved without their frozen world model, and readers that are given it."""

import json
import shutil

import pytest
import torch
from checkpoint_states import differences

import lit_pwm
from lit_pwm.checkpoints.references import fingerprint_of
from lit_pwm.cli.main import run
from lit_pwm.errors import LitPWMError
from lit_pwm.evaluation import evaluate_task
from lit_pwm.updates.frozen_model import FrozenModel

QUICK = ["--trainer.enable_model_summary", "false", "--trainer.enable_progress_bar", "false"]
SHORT = ["--data.batch_size", "16", "--data.horizon", "4", "--trainer.limit_val_batches", "1"]


@pytest.fixture(scope="module")
def fit(store):
    def go(root, model, *extra, steps=2):
        argv = ["fit", "--config", "configs/policy_learning_offline.yaml", "--config", "configs/policy/mlp.yaml"]
        argv += [
            *QUICK,
            *SHORT,
            "--data.store",
            store,
            "--data.tasks",
            "[cartpole-swingup]",
            "--trainer.accelerator",
            "cpu",
        ]
        argv += ["--trainer.val_check_interval", 2, "--trainer.max_steps", steps, "--trainer.default_root_dir", root]
        argv += ["--model.world_model_checkpoint", model] if model else []
        return run([str(word) for word in [*argv, *extra]])

    return go


def last(root):
    return next(root.rglob("last.ckpt"))


REFERENCE = ["--model.save_world_model", "reference"]


@pytest.fixture(scope="module")
def runs(fit, world_model, tmp_path_factory):
    """The same policy, saved with its world model and without it."""
    root = tmp_path_factory.mktemp("runs")
    shutil.copy(world_model, root / "model.ckpt")
    assert fit(root / "full", root / "model.ckpt") == 0
    assert fit(root / "reference", root / "model.ckpt", *REFERENCE) == 0
    return root


@pytest.fixture
def copied(runs, tmp_path):
    """The policy without its world model, where the file that it was trained on is gone, and that file elsewhere."""
    shutil.copytree(runs / "reference", tmp_path / "run")
    shutil.copy(runs / "model.ckpt", tmp_path / "elsewhere.ckpt")
    shutil.move(runs / "model.ckpt", runs / "away.ckpt")
    yield tmp_path
    shutil.move(runs / "away.ckpt", runs / "model.ckpt")


def test_a_checkpoint_without_the_world_model_is_smaller_by_it_and_else_the_same(runs, world_model):
    full, reference = (torch.load(last(runs / name), weights_only=True) for name in ("full", "reference"))
    left_out = {key for key in full["state_dict"] if key.startswith("world_model.")}
    assert left_out
    assert set(reference["state_dict"]) == set(full["state_dict"]) - left_out
    assert all(torch.equal(value, full["state_dict"][key]) for key, value in reference["state_dict"].items())
    bytes_left_out = sum(full["state_dict"][key].nbytes for key in left_out)
    saved = last(runs / "full").stat().st_size - last(runs / "reference").stat().st_size
    assert saved > bytes_left_out


def test_it_acts_as_the_whole_one_with_the_file_that_it_was_trained_on_or_one_that_is_given(runs, world_model):
    whole = lit_pwm.load_policy(last(runs / "full"))
    for policy in (
        lit_pwm.load_policy(last(runs / "reference")),
        lit_pwm.load_policy(last(runs / "reference"), world_model=world_model),
    ):
        assert all(torch.equal(value, policy.state_dict()[key]) for key, value in whole.state_dict().items())
    model = lit_pwm.load_world_model(last(runs / "reference"))
    assert all(torch.equal(value, whole.world_model.state_dict()[key]) for key, value in model.state_dict().items())


def test_verbs_that_read_it_take_the_file_by_an_option(copied, capsys):
    argv = ["evaluate", "--checkpoint", last(copied / "run"), "--tasks", "cartpole-swingup", "--episodes", 1]
    argv = [str(word) for word in [*argv, "--out", copied / "result.json"]]
    assert run(argv) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "model.ckpt', does not exist" in said
    assert "--world-model FILE" in said
    assert run([*argv, "--world-model", str(copied / "elsewhere.ckpt")]) == 0
    policy = lit_pwm.load_policy(last(copied / "run"), world_model=copied / "elsewhere.ckpt")
    result = json.loads((copied / "result.json").read_text())["tasks"]["cartpole-swingup"]
    assert result["returns"] == list(evaluate_task(policy, "cartpole-swingup", 1, result.get("seed", 0)).returns)


def test_weights_alone_are_exported_whole_and_not_resumed_from(copied, fit, capsys):
    """Of a policy that refers to its world model, with the model."""
    out = copied / "weights.ckpt"
    argv = ["checkpoint", "convert", str(last(copied / "run")), "--to", "native", "--weights-only", "--out", str(out)]
    assert run([*argv, "--world-model", str(copied / "elsewhere.ckpt")]) == 0
    assert out.stat().st_size < 0.7 * last(copied / "run").stat().st_size
    whole = lit_pwm.load_policy(last(copied / "run"), world_model=copied / "elsewhere.ckpt").state_dict()
    weights = lit_pwm.load_policy(out).state_dict()
    assert weights.keys() == whole.keys()
    assert all(torch.equal(value, whole[key]) for key, value in weights.items())
    assert fit(copied / "new", None, "--ckpt_path", out, steps=4) == 2
    assert "weights alone" in " ".join(capsys.readouterr().err.split())


def test_it_is_inspected_without_the_model(copied, capsys):
    assert run(["checkpoint", "inspect", str(last(copied / "run"))]) == 0
    said = " ".join(capsys.readouterr().out.split())
    model = lit_pwm.load_world_model(copied / "elsewhere.ckpt")
    assert f"left out; {fingerprint_of(model)[:40]}" in said


def test_a_run_goes_on_from_it_to_the_bit(fit, copied, runs, capsys):
    supplied = ["--world-model", copied / "elsewhere.ckpt"]
    assert fit(copied / "run", runs / "model.ckpt", *REFERENCE, "--ckpt_path", "auto", steps=4) == 2
    assert "does not exist" in capsys.readouterr().err
    assert fit(copied / "run", runs / "model.ckpt", *REFERENCE, *supplied, "--ckpt_path", "auto", steps=4) == 0
    shutil.copytree(runs / "full", copied / "full")
    assert fit(copied / "full", None, "--ckpt_path", "last", steps=4) == 0
    found = differences(copied / "run", copied / "full")
    assert all("world_model" in place for place in found), found
    state = torch.load(last(copied / "run"), weights_only=True)
    assert state["lit_pwm"]["world_model_reference"]["file"] == str(copied / "elsewhere.ckpt")
    assert not any(key.startswith("world_model.") for key in state["state_dict"])
    # And back: what is saved from now on holds the model again.
    assert fit(copied / "whole", None, *supplied, "--ckpt_path", last(copied / "run"), steps=5) == 0
    assert lit_pwm.load_policy(last(copied / "whole")).task_names


@pytest.mark.parametrize("what", ["another", "changed", "itself", "nothing"])
def test_a_file_that_does_not_hold_it_is_refused(copied, what):
    file = copied / "elsewhere.ckpt"
    if what in ("another", "changed"):
        content = torch.load(file, weights_only=True)
        key = [key for key in content["state_dict"] if key.startswith("world_model.")][-1 if what == "changed" else 0]
        content["state_dict"][key] += 1e-6 if what == "changed" else torch.randn_like(content["state_dict"][key])
        torch.save(content, file)
    elif what == "itself":
        file = last(copied / "run")
    else:
        file = copied / "nowhere.ckpt"
    words = {"itself": "holds none either", "nothing": "does not exist"}.get(what, "another one, or was changed since")
    with pytest.raises(LitPWMError, match=words) as refused:
        lit_pwm.load_policy(last(copied / "run"), world_model=file)
    assert str(file) in str(refused.value)
    assert "--world-model" in str(refused.value)


@pytest.mark.parametrize("value", ["x", {"file": 3}, {"fingerprint": "a"}])
def test_a_reference_that_says_nothing_is_refused(copied, value):
    content = torch.load(last(copied / "run"), weights_only=True)
    content["lit_pwm"]["world_model_reference"] = value
    torch.save(content, copied / "odd.ckpt")
    with pytest.raises(LitPWMError, match=r"odd\.ckpt.*does not say which it was"):
        lit_pwm.load_policy(copied / "odd.ckpt")


def test_a_world_model_that_changes_is_not_referred_to(world_model):
    """As where it grew by a task, or a part of it was trained."""
    model = lit_pwm.load_world_model(world_model)
    frozen = FrozenModel(str(world_model), fingerprint_of(model))
    frozen.check(model, lit_pwm.load_world_model)
    with torch.no_grad():
        next(model.parameters()).mul_(1.01)
    with pytest.raises(LitPWMError, match=r"no longer the one in .*save_world_model full"):
        frozen.check(model, lit_pwm.load_world_model)
    with pytest.raises(LitPWMError, match=r"knows no file.*--world-model FILE"):
        FrozenModel(None).check(model, lit_pwm.load_world_model)
    with pytest.raises(LitPWMError, match="another one, or was changed since"):
        FrozenModel(str(world_model)).check(model, lit_pwm.load_world_model)


def test_the_option_is_given_once_and_with_a_file(refused):
    assert "given 2 times" in refused("data", "info", "x.h5", "--world-model", "a", "--world-model", "b")
    assert "stands without a value" in refused("data", "info", "x.h5", "--world-model")
