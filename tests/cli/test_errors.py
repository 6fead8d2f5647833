"""Bad input: one paragraph that says what to do, exit code 2, no traceback, nothing left behind."""

import shutil

import h5py
import pytest

from lit_pwm.cli.main import run

SHORT = ["--data.batch_size", "16", "--data.horizon", "4", "--trainer.limit_val_batches", "1"]
PRETRAIN = ["fit", "--config", "configs/pretrain.yaml", "--config", "configs/world_model/mlp_tiny.yaml"]
POLICY = ["fit", "--config", "configs/policy_learning.yaml", "--config", "configs/policy/mlp.yaml"]


def test_unknown_key(refused, store):
    text = refused(*PRETRAIN, "--data.store", store, "--model.latent_dimm", "64")
    assert "latent_dimm" in text
    assert "Did you mean model.world_model.latent_dim?" in " ".join(text.split())


def test_unknown_key_in_a_config(refused, store, tmp_path_factory):
    config = tmp_path_factory.mktemp("configs") / "mine.yaml"
    config.write_text("trainer:\n  max_stepz: 3\n")
    text = refused(*PRETRAIN, "--config", config, "--data.store", store)
    assert "max_stepz" in text
    assert "'max_steps'" in text


def test_wrong_type(refused, store):
    assert "latent_dim" in refused(*PRETRAIN, "--data.store", store, "--model.latent_dim", "many")


@pytest.mark.parametrize(
    ("opening", "said"),
    [
        ("{update: 1.5}", "parts.encoder.update"),
        ("{updat: 1}", "Did you mean 'update'"),
        ("{lr: x}", "parts.encoder.lr"),
    ],
)
def test_a_wrong_option_of_an_opening_is_named_and_no_part_is(refused, store, opening, said):
    """Names of a mapping are the user's; options are below them."""
    argv = ["--trainer.callbacks", "callbacks.FinetuneSchedule", "--trainer.callbacks.parts", f"{{encoder: {opening}}}"]
    error = refused("fit", "--config", "configs/policy_learning.yaml", "--data.store", store, *argv)
    assert said in error
    assert "Accepted: lr, update" not in error


def test_missing_config(refused):
    text = refused("fit", "--config", "configs/pretrian.yaml")
    assert "configs/pretrian.yaml" in text
    assert "'configs/pretrain.yaml'" in text


def test_missing_store(refused):
    text = refused(*PRETRAIN, "--data.store", "nowhere.h5")
    assert "nowhere.h5" in text


def test_no_store(refused):
    assert "store" in refused(*PRETRAIN)


def test_wrong_task_in_the_data(refused, store):
    text = refused(*PRETRAIN, "--data.store", store, "--data.tasks", "[cartpole-swingupp]")
    assert "'cartpole-swingup'" in text


def test_wrong_task_to_collect(refused):
    text = refused("collect", "--tasks", "cartpole-swing-up", "--episodes", "1", "--out", "x.h5")
    assert "'cartpole-swingup'" in text


def test_wrong_task_to_evaluate(refused, policy):
    text = refused("evaluate", "--checkpoint", policy, "--tasks", "walker-rum", "--episodes", "1")
    assert "'walker-run'" in text


@pytest.mark.parametrize("tasks", ["", ",", " , "])
def test_no_task_to_evaluate(refused, policy, tasks):
    """An empty variable of a shell is not all tasks."""
    assert "names no task" in refused("evaluate", "--checkpoint", policy, "--tasks", tasks, "--episodes", "1")


def test_store_of_another_format_version(refused, store, tmp_path_factory):
    other = tmp_path_factory.mktemp("other") / "other.h5"
    shutil.copy(store, other)
    with h5py.File(other, "r+") as file:
        key = next(key for key in file.attrs if "version" in key)
        file.attrs[key] = 999
    for argv in ([*PRETRAIN, "--data.store", other], ["data", "info", other], ["data", "check", other]):
        text = refused(*argv)
        assert "999" in text
        assert str(other) in text.replace("\n", "")


def test_not_a_store(refused, tmp_path_factory):
    other = tmp_path_factory.mktemp("other") / "notes.h5"
    other.write_text("not HDF5")
    assert str(other) in refused("data", "check", other)


def test_batch_larger_than_the_data(refused, store):
    text = refused(*PRETRAIN, "--data.store", store, "--data.batch_size", "1000000")
    assert "1000000" in text.replace(",", "").replace("_", "")


def test_horizon_longer_than_the_episodes(refused, store):
    assert "horizon" in refused(*PRETRAIN, "--data.store", store, "--data.horizon", "600")


def test_checkpoint_of_another_size(refused, store, world_model):
    argv = [*PRETRAIN, "--data.store", store, "--trainer.max_steps", "6", *SHORT, "--ckpt_path", world_model]
    text = refused(*argv)
    assert "latent_dim is 32 there and 128 here" in text


def test_policy_resumed_from_a_world_model(refused, store, world_model):
    argv = [*POLICY, *SHORT, "--data.store", store, "--data.tasks", "[cartpole-swingup]", "--trainer.max_steps", "6"]
    text = refused(*argv, "--ckpt_path", world_model)
    assert "world model" in text


def test_task_that_the_model_does_not_know(refused, world_model, tmp_path_factory):
    other = tmp_path_factory.mktemp("pendulum") / "pendulum.h5"
    argv = ["collect", "--tasks", "pendulum-swingup", "--episodes", "2", "--out", str(other), "--workers", "1"]
    assert run(argv) == 0
    text = refused(*POLICY, "--model.world_model_checkpoint", world_model, "--data.store", other, *SHORT)
    assert "pendulum-swingup" in text
    assert "cartpole-balance" in text


def test_policy_without_a_world_model(refused, store):
    assert "world_model_checkpoint" in refused(*POLICY, "--data.store", store, *SHORT)


def test_missing_world_model(refused, store):
    argv = [*POLICY, "--data.store", store, *SHORT, "--model.world_model_checkpoint", "gone.ckpt"]
    assert "gone.ckpt" in refused(*argv)


def test_a_world_model_is_no_policy(refused, world_model):
    text = refused("evaluate", "--checkpoint", world_model)
    assert "world model" in text


def test_missing_checkpoint_to_resume(refused, store):
    assert "gone.ckpt" in refused(*PRETRAIN, "--data.store", store, *SHORT, "--ckpt_path", "gone.ckpt")


def test_unknown_verb(refused):
    assert "'collect'" in refused("colect")


def test_missing_option(refused):
    assert "--out" in refused("collect", "--tasks", "cartpole-swingup", "--episodes", "1")


def test_latent_no_multiple_of_the_group(refused, store):
    text = refused(*PRETRAIN, "--data.store", store, *SHORT, "--model.latent_dim", "30")
    assert "multiple of 8" in text
