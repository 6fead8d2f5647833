"""Files of PWM's in runs and evaluations, and checkpoints at URLs, on the command line."""

from __future__ import annotations

import importlib.util
import json
import os
import re
from pathlib import Path

import fsspec
import numpy as np
import pytest
import torch

from lit_pwm.checkpoints import load_policy, load_world_model
from lit_pwm.cli.main import run

FOREIGN = Path(__file__).parents[1] / "formats" / "pwm_files"
TASKS = "walker-walk,cup-catch,cheetah-run"
SHORT = [
    *("--data.batch_size", "4", "--data.horizon", "4", "--data.val_fraction", "0", "--trainer.max_steps", "1"),
    *("--trainer.limit_val_batches", "0", "--trainer.accelerator", "cpu"),
]
POLICY = ["fit", "--config", "configs/policy_learning.yaml", "--config", "configs/policy/mlp.yaml", *SHORT]


@pytest.fixture(scope="module")
def cup_store(tmp_path_factory):
    from datamodules import EpisodeWriter

    path, rng = tmp_path_factory.mktemp("cup") / "cup.h5", np.random.default_rng(0)
    with EpisodeWriter(path, tasks={"cup-catch": (8, 2)}) as writer:
        for _ in range(2):
            action, reward = rng.uniform(-1, 1, (20, 2)), rng.uniform(size=20)
            writer.append(task="cup-catch", obs=rng.normal(size=(21, 8)), action=action, reward=reward, source="drawn")
    return path


@pytest.fixture
def at_url():
    """Puts a file into fsspec's memory, and gives its URL."""
    put = []

    def put_file(path, name=None):
        put.append(f"memory://some/where/{name or Path(path).name}")
        fsspec.filesystem("memory").pipe_file(put[-1], Path(path).read_bytes())
        return put[-1]

    yield put_file
    for url in put:
        fsspec.filesystem("memory").rm(url)


def fitted(root, *argv):
    assert run([*argv, "--trainer.default_root_dir", str(root)]) == 0
    (found,) = root.rglob("last.ckpt")
    return found


def test_a_policy_goes_on_from_a_file_of_pwms(cup_store, at_url, tmp_path):
    url = at_url(FOREIGN / "pwm_training.pt")
    argv = ["--data.store", str(cup_store), "--model.world_model_checkpoint", str(FOREIGN / "pwm_training.pt")]
    argv += ["--model.initial_policy_checkpoint", url, "--model.checkpoint_tasks", f"[{TASKS}]"]
    argv += ["--model.actor.hidden_dims", "[20,12,8]", "--model.critic.hidden_dims", "[14,10]"]
    # Steps too small to see: what is saved are the file's weights.
    argv += ["--model.actor_optimizer.lr", "1e-9", "--model.critic_optimizer.lr", "1e-9"]
    argv += ["--model.actor_optimizer.final_lr", "1e-9", "--model.critic_optimizer.final_lr", "1e-9"]
    ours = load_policy(fitted(tmp_path, *POLICY, *argv))
    with np.load(FOREIGN / "pwm_training_outputs.npz", allow_pickle=False) as file:
        expected = {key: torch.from_numpy(np.asarray(file[key])) for key in file.files}
    z, task = expected["z0"], expected["task"]
    assert ours.trained_tasks == ("cup-catch",)
    mask = ours.world_model.action_mask()[task]
    with torch.no_grad():
        actions = ours.actor(z, task, deterministic=True)
        torch.testing.assert_close(actions, mask * expected["actor_mean_pretanh"].tanh(), atol=1e-4, rtol=0)
        torch.testing.assert_close(ours.critic(z, task), expected["critic_values"], atol=1e-4, rtol=0)
        torch.testing.assert_close(ours.world_model.encode(expected["obs"], task), z, atol=1e-6, rtol=0)


def test_a_world_model_at_a_url_is_trained_further(cup_store, at_url, tmp_path):
    url = at_url(FOREIGN / "flow_mbpo_flow_pretraining.pt")
    argv = ["fit", "--config", "configs/pretrain.yaml", *SHORT, "--data.store", str(cup_store)]
    argv += ["--model.initial_checkpoint", url, "--trainer.callbacks=null"]
    path = fitted(tmp_path, *argv)
    model, began = load_world_model(path), load_world_model(url)
    assert model.description() == began.description()
    assert not torch.equal(model.dynamics.net[0].weight, began.dynamics.net[0].weight)


def test_a_policy_of_pwms_is_evaluated_in_the_task_that_is_named(at_url, tmp_path, capsys, refused):
    url = at_url(FOREIGN / "pwm_single_task.pt")
    out = tmp_path.parent / f"{tmp_path.name}.json"
    common = ["--episodes", "1", "--out", str(out)]
    assert run(["evaluate", "--checkpoint", url, "--tasks", "walker-walk", *common]) == 0
    assert list(json.loads(out.read_text())["tasks"]) == ["walker-walk"]
    assert json.loads(out.read_text())["checkpoint"] == url
    out.unlink()
    assert "--tasks" in refused("evaluate", "--checkpoint", url)
    assert "flow actor" in refused("evaluate", "--checkpoint", FOREIGN / "flow_mbpo_flow_actor.pt", "--tasks", TASKS)
    assert "without an actor" in refused("evaluate", "--checkpoint", FOREIGN / "flow_mbpo_pretraining.pt")


def test_a_policy_of_mt30_without_a_name_of_its_task_is_not_evaluated_in_all_thirty(tmp_path_factory, refused, capsys):
    from lit_pwm.checkpoints.formats.inert_objects import STUBS

    with torch.serialization.safe_globals([*STUBS]):
        content = torch.load(FOREIGN / "pwm_training.pt", weights_only=True) | {"ret_rms": None}
    weights = content["world_model"]
    weights["_task_emb.weight"] = weights["_task_emb.weight"].repeat(10, 1)
    path = tmp_path_factory.mktemp("mt30") / "mt30.pt"
    torch.save(content, path)
    assert "does not say which task" in refused("evaluate", "--checkpoint", path)
    ours = path.with_suffix(".ckpt")
    assert run(["checkpoint", "convert", str(path), "--to", "native", "--out", str(ours)]) == 0
    assert "does not say which task" in refused("evaluate", "--checkpoint", ours)
    assert run(["checkpoint", "inspect", str(ours)]) == 0
    assert re.search(r"trained tasks +not said", capsys.readouterr().out)


def test_checkpoints_at_urls_are_inspected_converted_and_refused_as_local_ones(at_url, tmp_path, refused, capsys):
    source = FOREIGN / "flow_mbpo_pretraining.pt"
    for url in (at_url(source), f"file://{source}"):
        capsys.readouterr()
        assert run(["checkpoint", "inspect", url, "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert (found["path"], found["bytes"]) == (url, source.stat().st_size)
        out = tmp_path.parent / f"{tmp_path.name}.ckpt"
        assert run(["checkpoint", "convert", url, "--to", "native", "--out", str(out)]) == 0
        assert load_world_model(out).task_names == tuple(TASKS.split(","))
        out.unlink()
    torn = tmp_path.parent / f"{tmp_path.name}.pt"
    torn.write_bytes(source.read_bytes()[:9000])
    assert "memory://some/where/torn.pt" in refused("checkpoint", "inspect", at_url(torn, "torn.pt"))


class Executes:
    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        return os.system, (f"touch {self.trace}",)


def test_a_hostile_file_at_a_url_runs_nothing(at_url, tmp_path, refused):
    trace, path = tmp_path / "executed", tmp_path.parent / f"{tmp_path.name}.hostile"
    torch.save({"world_model": Executes(trace)}, path)
    assert "read safely" in refused("evaluate", "--checkpoint", at_url(path), "--tasks", "walker-walk")
    assert not trace.exists()


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("memory://some/where/nothing.pt", "does not exist"),
        ("file:///nowhere/nothing.pt", "does not exist"),
        ("hff://some/where/nothing.pt", "not known"),
        pytest.param(
            "s3://bucket/nothing.pt",
            "lit-pwm[hub]",
            marks=pytest.mark.skipif(importlib.util.find_spec("s3fs") is not None, reason="s3fs is installed"),
        ),
    ],
)
def test_a_url_that_cannot_be_had_is_named(url, said, refused):
    message = refused("checkpoint", "inspect", url)
    assert url in message
    assert said in message
    assert url in refused("evaluate", "--checkpoint", url)
    resumed = refused(*POLICY, "--data.store", "x.h5", "--ckpt_path", url)
    assert "copy" in resumed
