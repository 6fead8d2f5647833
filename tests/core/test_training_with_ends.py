"""Both modules on real episodes of which some end by termination: the head is built, trained, kept and missed."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from tuned import Saving, learner, schedule, two_streams

import callbacks
from datamodules import EpisodeWriter, MultitaskDataModule
from lit_pwm import WorldModelPretraining, load_policy
from lit_pwm.checkpoints import load_world_model
from lit_pwm.cli.main import run
from lit_pwm.discounting import ConstantDiscount
from lit_pwm.errors import LitPWMError
from lit_pwm.models import ContinuationHead, FlowDynamics, MLPDynamics, MLPEncoder, TwoHotReward, WorldModelOptions
from lit_pwm.tasks import make_env

FALLS, STANDS = "gym:InvertedPendulum-v5", "gym:Reacher-v5"
"""One falls after some ten random actions; the other is cut off after 50 steps."""

pytestmark = pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no `val_dataloader`")


def write(path, tasks, episodes=40):
    rng, envs = np.random.default_rng(0), {task: make_env(task) for task in tasks}
    dims = {task: (env.observation_space.shape[0], env.action_space.shape[0]) for task, env in envs.items()}
    with EpisodeWriter(path, tasks=dims) as writer:
        for task, env in envs.items():
            for seed in range(episodes if task == FALLS else 8):
                obs, rewards, actions, over = [env.reset(seed=seed)[0]], [], [], False
                while not over:
                    actions.append(rng.uniform(-1, 1, dims[task][1]))
                    after, reward, terminated, truncated, _ = env.step(actions[-1])
                    obs.append(after)
                    rewards.append(reward)
                    over = terminated or truncated
                writer.append(
                    task=task, obs=np.array(obs), action=np.array(actions), reward=np.array(rewards),
                    terminated=terminated, source="random",
                )  # fmt: skip
    return path


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    return write(tmp_path_factory.mktemp("ends") / "both.h5", [STANDS, FALLS])


@pytest.fixture(scope="module")
def stands(tmp_path_factory):
    return write(tmp_path_factory.mktemp("ends") / "stands.h5", [STANDS])


def pretraining(dynamics=MLPDynamics, heads=None, **options):
    parts = {"encoder": partial(MLPEncoder, hidden_dim=16), "reward": partial(TwoHotReward, hidden_dim=20)}
    made = WorldModelOptions(partial(dynamics, hidden_dim=16), 16, 4, heads=heads, **parts)
    return WorldModelPretraining(made, optimizer={"lr": 3e-3, "warmup_steps": 0}, **options)


def data_of(store, **options):
    return MultitaskDataModule(store, **{"horizon": 3, "batch_size": 32, "batches_per_epoch": 100, **options})


@pytest.fixture(scope="module")
def files(both, stands, fit, tmp_path_factory):
    """World models: of both tasks, of the same without a head, and with one that was asked for where nothing ends."""
    root = tmp_path_factory.mktemp("models")
    jobs = {
        "ends": (both, None, None, 150), "without": (stands, None, None, 2),
        "asked": (both, [STANDS], {"continuation": partial(ContinuationHead, hidden_dim=8)}, 2),
    }  # fmt: skip
    found = {}
    for name, (store, tasks, heads, updates) in jobs.items():
        module = pretraining(heads=heads)
        found[name] = root / f"{name}.ckpt"
        fit(module, data_of(store, tasks=tasks), updates).save_checkpoint(found[name])
    return found


def test_the_head_is_built_from_the_data_and_learns_its_ends(files, both):
    model = load_world_model(files["ends"])
    assert model.continuation_head.init_args == {"hidden_dim": 20, "layers": 2}
    assert model.terminating_tasks == (FALLS,)
    data = data_of(both, batch_size=256)
    data.setup()
    data.bind_tasks(model.task_names, model.obs_dim, model.action_dim)
    batch = next(iter(data.val_dataloader()))
    c = model.continuation(model.encode(batch["obs"][:-1], batch["task"]), batch["action"], batch["task"])
    falls = (batch["task"] == model.task_names.index(FALLS)) & batch["valid"]
    ended = batch["terminated"][falls].double()
    assert (c[:, batch["task"] == model.task_names.index(STANDS)] == 1).all()
    brier, base = ((1 - c[falls]) - ended).square().mean(), ended.mean() * (1 - ended.mean())
    assert 0.02 < ended.mean() < 0.5
    assert brier < 0.5 * base
    assert load_world_model(files["without"]).continuation_head is None
    assert load_world_model(files["asked"]).terminating_tasks == ()


def test_the_verb_that_inspects_names_it(files, tmp_path, capsys):
    assert run(["checkpoint", "inspect", str(files["ends"])]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "lit_pwm.models.continuation_head." in out
    assert f"episodes end in {FALLS}" in out
    for form in ("tdmpc2", "pwm", "tdmpc2-original"):
        target = tmp_path / f"{form}.pt"
        assert run(["checkpoint", "convert", str(files["ends"]), "--to", form, "--out", str(target)]) == 2
        error = " ".join(capsys.readouterr().err.split())
        assert "'continuation' beside its reward" in error
        assert not target.exists()
    native = tmp_path / "native.ckpt"
    assert run(["checkpoint", "convert", str(files["ends"]), "--to", "native", "--out", str(native)]) == 0
    assert load_world_model(native).terminating_tasks == (FALLS,)


def test_a_model_without_it_meets_no_data_that_ends(files, both, stands, fit, tmp_path):
    """Loaded, resumed, as a policy's, beside a second stream, and whatever the policy believes."""
    expected = rf"ended by termination \({FALLS}\).*no continuation head.*heads\.continuation.*data\.tasks"
    first = pretraining(initial_checkpoint=str(files["without"]), new_tasks={FALLS: STANDS})
    with pytest.raises(LitPWMError, match=expected):
        fit(first, data_of(both), 1)
    whole = tmp_path / "both-without.ckpt"
    module = pretraining(task_set=None)
    fit(module, data_of(both), 1)
    del module.world_model.heads["continuation"]
    module.trainer.save_checkpoint(whole)
    for options in ({}, {"discounting": ConstantDiscount}):
        with pytest.raises(LitPWMError, match=expected):
            fit(learner(whole, **options), data_of(both), 1)
    with pytest.raises(LitPWMError, match=expected):
        fit(learner(whole), two_streams(both, tasks=[STANDS]), 1, callbacks=[schedule(all=0)])
    with pytest.raises(LitPWMError, match=expected):
        fit(pretraining(), data_of(both), 2, ckpt_path=whole)
    fit(learner(whole), data_of(both, tasks=[STANDS]), 1)
    fit(learner(files["without"]), data_of(stands), 1)


def test_a_head_that_has_seen_no_end_of_a_task_is_refused_unless_it_is_trained(files, both, fit, tmp_path):
    grown = {"initial_checkpoint": str(files["ends"])}
    blind = tmp_path / "blind.ckpt"
    module = pretraining(**grown)
    trainer = fit(module, data_of(both), 1)
    module.world_model.know_ends_({FALLS: False})
    trainer.save_checkpoint(blind)
    expected = rf"episodes of {FALLS}.*trained on none.*initial_checkpoint.*FinetuneSchedule"
    with pytest.raises(LitPWMError, match=expected):
        fit(learner(blind), data_of(both), 1)
    with pytest.raises(LitPWMError, match=expected):
        fit(learner(blind), two_streams(both), 2, callbacks=[schedule(reward=0)])
    tuned = learner(blind)
    fit(tuned, two_streams(both), 2, callbacks=[schedule(continuation=0)])
    assert tuned.world_model.terminating_tasks == (FALLS,)
    further = pretraining(initial_checkpoint=str(blind))
    fit(further, data_of(both), 2)
    assert further.world_model.terminating_tasks == (FALLS,)


def test_a_new_task_brings_its_ends(files, both, fit):
    module = pretraining(initial_checkpoint=str(files["asked"]), new_tasks={FALLS: STANDS})
    fit(module, data_of(both), 2)
    assert module.world_model.terminating_tasks == (FALLS,)
    assert module.world_model.task_names == (STANDS, FALLS)


@pytest.mark.parametrize("dynamics", [MLPDynamics, FlowDynamics])
def test_policies_are_trained_resumed_and_evaluated(dynamics, files, both, fit, tmp_path):
    path = files["ends"]
    if dynamics is FlowDynamics:
        path = tmp_path / "flow.ckpt"
        fit(pretraining(dynamics), data_of(both), 2).save_checkpoint(path)
    whole, half = learner(path), tmp_path / "half.ckpt"
    trainer = fit(whole, data_of(both), 4, callbacks=[Saving(2, half)])
    trainer.save_checkpoint(tmp_path / "policy.ckpt")
    resumed = learner(path)
    fit(resumed, data_of(both), 4, ckpt_path=half)
    for key, value in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[key], value), key
    constant = learner(path, discounting=ConstantDiscount)
    fit(constant, data_of(both), 4)
    assert not torch.equal(constant.actor.mean.weight, whole.actor.mean.weight)
    assert load_policy(tmp_path / "policy.ckpt").world_model.terminating_tasks == (FALLS,)
    (logged,) = trainer.validate(whole, datamodule=data_of(both), verbose=False)
    assert np.isfinite(logged["val/imagined_reward"])


def test_the_model_is_trained_further_and_from_scratch(files, both, fit):
    before = load_world_model(files["ends"]).state_dict()
    module = learner(files["ends"])
    fit(module, two_streams(both), 4, callbacks=[schedule(continuation=1)])
    after = module.world_model.state_dict()
    moved = {name.split(".")[1] for name, value in after.items() if not torch.equal(before[name], value)}
    assert moved == {"continuation"}
    small = WorldModelOptions(
        partial(MLPDynamics, hidden_dim=16), 16, 4, partial(MLPEncoder, hidden_dim=16),
        partial(TwoHotReward, hidden_dim=16),
    )  # fmt: skip
    fresh = learner(None, world_model=small)
    trainer = fit(fresh, two_streams(both), 3, callbacks=[schedule(all=0)])
    assert fresh.world_model.terminating_tasks == (FALLS,)
    assert trainer.callback_metrics["train/continuation"] > 0
    names = [group["name"] for group in trainer.optimizers[-1].param_groups]
    assert names == ["encoder", "dynamics", "reward", "continuation", "task_embedding"]


def test_the_command_line_asks_for_the_head_and_for_the_control(stands, tmp_path, capfd):
    """As docs/ends.md spells them."""
    common = ["--data.store", str(stands), "--data.batch_size", "8", "--data.horizon", "3", "--trainer.max_steps", "1"]
    common += ["--trainer.callbacks", "null", "--trainer.accelerator", "cpu", "--trainer.default_root_dir"]
    asked = ["--model.world_model.heads.continuation", "lit_pwm.models.ContinuationHead"]
    configs = ["--config", "configs/pretrain.yaml", "--config", "configs/world_model/mlp_tiny.yaml"]
    assert run(["fit", *configs, *asked, *common, str(tmp_path / "model")]) == 0, capfd.readouterr().err
    (file,) = (tmp_path / "model").rglob("last.ckpt")
    assert load_world_model(file).continuation_head.hidden_dim == 512
    control = ["--model.discounting", "lit_pwm.discounting.ConstantDiscount", "--model.horizon", "4"]
    policy = ["--config", "configs/policy_learning.yaml", "--model.world_model_checkpoint", str(file)]
    assert run(["fit", *policy, *control, *common, str(tmp_path / "policy")]) == 0, capfd.readouterr().err
    (file,) = (tmp_path / "policy").rglob("last.ckpt")
    kept = torch.load(file, weights_only=True)["hyper_parameters"]["discounting"]
    assert kept["class_path"] == "lit_pwm.discounting.ConstantDiscount"


def test_the_heads_operations_are_counted(files, both, fit, tmp_path):
    flops = {}
    for name, options in (("c", {}), ("one", {"discounting": ConstantDiscount})):
        ledger = callbacks.ComputeLedger()
        fit(learner(files["ends"], **options), data_of(both), 2, callbacks=[ledger], default_root_dir=tmp_path)
        flops[name] = ledger.totals.flops
    assert flops["c"] > flops["one"]
