"""`new_tasks`: what a loaded model or policy has never seen is learnt beside what it knows, which keeps its bits."""

from __future__ import annotations

import copy
from functools import partial

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback

import callbacks
from datamodules import EpisodeWriter, MultitaskDataModule
from datamodules.second_stream import SecondStream
from lit_pwm import PolicyLearning, WorldModelPretraining
from lit_pwm.checkpoints import load_policy, load_world_model
from lit_pwm.errors import LitPWMError
from lit_pwm.models import CriticEnsemble, FlowActor, MLPActor, MLPDynamics

pytestmark = [
    pytest.mark.filterwarnings("ignore:Using ModelCheckpoint with manual optimization"),
    pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`, callbacks"),
    pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no `val_dataloader`"),
]

DIMS = {
    "alpha": (3, 1),
    "beta": (5, 2),
    "gamma": (4, 1),
    "wide": (9, 2),
    "strong": (5, 3),
    "slim": (2, 1),
    "cup-catch": (5, 2),
}
SHIFT = {"alpha": 0.0, "beta": 100.0, "gamma": -50.0, "wide": 0.0, "strong": 0.0, "slim": 0.0, "cup-catch": 0.0}
KNOWN = ("alpha", "beta")


@pytest.fixture(scope="module")
def data_of(tmp_path_factory):
    """A datamodule of these tasks, one store each."""
    folder, paths = tmp_path_factory.mktemp("stores"), {}
    for name, (obs_dim, action_dim) in DIMS.items():
        rng, paths[name] = np.random.default_rng(0), folder / f"{name}.h5"
        with EpisodeWriter(paths[name], tasks={name: (obs_dim, action_dim)}) as writer:
            for _ in range(8):
                action = rng.uniform(-1, 1, (30, action_dim))
                obs = SHIFT[name] + rng.standard_normal((31, obs_dim)).cumsum(0)
                writer.append(task=name, obs=obs, action=action, reward=-np.square(action).sum(1), source="script")

    def make(*names, second=()):
        other = SecondStream(3, 16, stores=[str(paths[name]) for name in second]) if second else None
        stores = [str(paths[name]) for name in names]
        return MultitaskDataModule(stores, horizon=3, batch_size=16, val_horizon=3, second=other)

    return make


def pretraining(**options):
    sizes = {"latent_dim": 16, "encoder_dim": 16, "reward_dim": 16, "task_dim": 4}
    return WorldModelPretraining(**{"dynamics": partial(MLPDynamics, hidden_dim=16), **sizes, **options})


ACTORS = {
    "mlp": partial(MLPActor, hidden_dims=(8,), task_dim=4),
    "flow": partial(FlowActor, hidden_dims=(8,), task_dim=4),
}


def policy_learning(world_model, actor="mlp", **options):
    parts = {"actor": ACTORS[actor], "critic": partial(CriticEnsemble, hidden_dims=(8,), task_dim=4)}
    return PolicyLearning(
        str(world_model), **{**parts, "horizon": 2, "critic_optimizer": {"passes": 1, "minibatches": 2}, **options}
    )


@pytest.fixture(scope="module")
def world_model(data_of, fit, tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "model.ckpt"
    fit(pretraining(lr=0.01), data_of(*KNOWN), 6).save_checkpoint(path)
    return path


@pytest.fixture(scope="module")
def policies(world_model, data_of, fit, tmp_path_factory):
    folder, files = tmp_path_factory.mktemp("policy"), {}
    for actor in ACTORS:
        files[actor] = folder / f"{actor}.ckpt"
        module = policy_learning(world_model, actor, actor_optimizer={"average_rate": 0.5, "lr": 0.01})
        fit(module, data_of(*KNOWN), 3).save_checkpoint(files[actor])
    return files


def rows_of(model):
    return {name: value for name, value in model.state_dict().items() if name.split(".")[-1] in ("obs_mean", "obs_std")
            or name.endswith("task_embedding.weight")}  # fmt: skip


class Begun(Callback):
    """Keeps the weights that a run begins with, by the name of the network."""

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_step == 0:
            self.networks = copy.deepcopy(dict(pl_module.named_children()))


# -- a world model ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("source", ["alpha", "beta", "mean"])
def test_a_new_task_starts_as_a_known_one_and_known_ones_keep_their_bits(source, world_model, data_of, fit):
    module = pretraining(lr=0.0, initial_checkpoint=str(world_model), new_tasks={"gamma": source})
    data = data_of("gamma")
    fit(module, data, 1)
    before, after = load_world_model(world_model), module.world_model
    assert after.task_names == (*KNOWN, "gamma")
    assert after.tasks["gamma"] == DIMS["gamma"]
    assert after.action_mask().tolist() == [[1, 0], [1, 1], [1, 0]]
    old, embeddings = before.task_embedding.weight, after.task_embedding.weight
    expected = old.mean(0) if source == "mean" else old[KNOWN.index(source)]
    assert torch.allclose(embeddings[2], expected, atol=1e-9, rtol=0)
    assert source == "mean" or torch.equal(embeddings[2], expected)
    mean, std = data.observation_statistics()["gamma"]
    assert after.obs_mean[2].tolist() == pytest.approx([*mean, 0.0])
    assert after.obs_std[2].tolist() == pytest.approx([*std, 1.0])
    weights = after.state_dict()
    for name, value in before.state_dict().items():
        grown = weights[name]
        assert torch.equal(grown[:2] if name in rows_of(before) else grown, value), name


def test_training_moves_the_tasks_of_the_data_alone(world_model, data_of, fit):
    """Weight decay would shrink the row of alpha, which the data lacks, too."""
    module = pretraining(
        optimizer={"lr": 0.01, "weight_decay": 5.0}, initial_checkpoint=str(world_model), new_tasks={"gamma": "alpha"}
    )
    fit(module, data_of("beta", "gamma"), 3)
    before, after = load_world_model(world_model), module.world_model
    for name, value in rows_of(before).items():
        assert torch.equal(after.state_dict()[name][0], value[0]), name
    old, new = before.task_embedding.weight, after.task_embedding.weight
    assert not torch.equal(new[1], old[1])
    assert not torch.equal(new[2], old[0])
    assert torch.equal(after.obs_mean[1], before.obs_mean[1])


def test_a_model_that_does_not_standardise_does_not_begin_to(data_of, fit, tmp_path):
    fit(pretraining(standardise_observations=False), data_of(*KNOWN), 1).save_checkpoint(tmp_path / "plain.ckpt")
    module = pretraining(initial_checkpoint=str(tmp_path / "plain.ckpt"), new_tasks={"gamma": "mean"})
    fit(module, data_of("gamma"), 1)
    assert (module.world_model.obs_mean == 0).all()
    assert (module.world_model.obs_std == 1).all()


def test_several_new_tasks_keep_the_order_in_which_they_are_named(world_model, data_of, fit):
    module = pretraining(lr=0.0, initial_checkpoint=str(world_model), new_tasks={"slim": "beta", "gamma": "alpha"})
    fit(module, data_of("gamma", "beta", "slim"), 1)
    assert module.world_model.task_names == (*KNOWN, "slim", "gamma")
    rows = module.world_model.task_embedding.weight
    assert torch.equal(rows[2:], rows[[1, 0]])


def test_a_run_with_a_new_task_is_resumed_to_the_bit_without_what_it_began_with(world_model, data_of, fit, tmp_path):
    began = tmp_path / "began.ckpt"
    began.write_bytes(world_model.read_bytes())
    options = {"initial_checkpoint": str(began), "new_tasks": {"gamma": "beta"}, "optimizer": {"weight_decay": 0.1}}
    whole = pretraining(**options)
    fit(whole, data_of("gamma", "beta"), 4)
    fit(pretraining(**options), data_of("gamma", "beta"), 2).save_checkpoint(tmp_path / "half.ckpt")
    began.unlink()
    resumed = pretraining(**options)
    fit(resumed, data_of("beta", "gamma"), 4, ckpt_path=tmp_path / "half.ckpt")
    assert resumed.world_model.task_names == (*KNOWN, "gamma")
    alike = pretraining(**options)
    fit(alike, data_of("gamma", "beta"), 4, ckpt_path=tmp_path / "half.ckpt")
    for name, value in whole.state_dict().items():
        assert torch.equal(alike.state_dict()[name], value), name
    fit(resumed, data_of("beta"), 5).save_checkpoint(tmp_path / "more.ckpt")
    assert load_world_model(tmp_path / "more.ckpt").tasks["gamma"] == DIMS["gamma"]


# -- a policy --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("actor", ACTORS)
@pytest.mark.parametrize("source", ["alpha", "mean"])
def test_a_loaded_policy_acts_in_a_new_task_as_in_its_source(actor, source, world_model, policies, data_of, fit):
    options = {"initial_policy_checkpoint": str(policies[actor]), "new_tasks": {"gamma": source}}
    module, begun = policy_learning(world_model, actor, **options), Begun()
    fit(module, data_of("gamma"), 1, callbacks=[begun])
    before = load_policy(policies[actor])
    for part in ("actor", "averaged_actor", "critic", "target_critic"):
        old = before.actor if "actor" in part else before.critic
        new, weights = begun.networks[part].state_dict(), old.state_dict()
        for name, value in weights.items():
            grown = new[name][:2] if name == "task_embedding.weight" else new[name]
            assert torch.equal(grown, value), (part, name)
        rows = weights["task_embedding.weight"]
        expected = rows.mean(0) if source == "mean" else rows[0]
        assert torch.allclose(new["task_embedding.weight"][2], expected, atol=1e-9, rtol=0), part
    assert module.actor.action_mask.tolist() == [[1, 0], [1, 1], [1, 0]]
    assert module.trained_tasks == ("gamma",)
    z = torch.softmax(torch.randn(5, 2, 8), -1).flatten(1)
    if source == "alpha":
        there, here = (begun.networks["actor"](z, torch.full((5,), row), deterministic=True) for row in (0, 2))
        assert torch.equal(there, here)


def test_rows_of_absent_tasks_keep_their_bits_in_actor_and_critics(world_model, policies, data_of, fit):
    options = {"initial_policy_checkpoint": str(policies["mlp"]), "new_tasks": {"gamma": "beta"}}
    module = policy_learning(world_model, actor_optimizer={"lr": 0.05}, **options)
    fit(module, data_of("gamma"), 3)
    before = load_policy(policies["mlp"])
    for new, old in ((module.actor, before.actor), (module.critic, before.critic)):
        assert torch.equal(new.task_embedding.weight[:2], old.task_embedding.weight)
        assert not torch.equal(new.task_embedding.weight[2], old.task_embedding.weight[1])


def test_a_policy_meets_a_world_model_that_has_learnt_the_task_already(world_model, policies, data_of, fit, tmp_path):
    further = pretraining(initial_checkpoint=str(world_model), new_tasks={"gamma": "beta"})
    fit(further, data_of("gamma"), 2).save_checkpoint(tmp_path / "further.ckpt")
    options = {"initial_policy_checkpoint": str(policies["mlp"]), "new_tasks": {"gamma": "beta"}}
    module = policy_learning(tmp_path / "further.ckpt", **options)
    fit(module, data_of("gamma"), 1).save_checkpoint(tmp_path / "policy.ckpt")
    for name, value in further.world_model.state_dict().items():
        assert torch.equal(module.world_model.state_dict()[name], value), name
    assert load_policy(tmp_path / "policy.ckpt").act(np.zeros((2, 4), np.float32), "gamma").shape == (2, 1)
    again = policy_learning(
        tmp_path / "further.ckpt", **options | {"initial_policy_checkpoint": str(tmp_path / "policy.ckpt")}
    )
    with pytest.raises(LitPWMError, match=r"'gamma', which the model knows already; it knows alpha, beta, gamma"):
        fit(again, data_of("gamma"), 1)


@pytest.mark.parametrize("policy", [True, False])
def test_a_policy_run_with_a_new_task_is_resumed_to_the_bit(
    policy, world_model, policies, data_of, fit, checkpoint_every, tmp_path
):
    options = {"new_tasks": {"gamma": "beta"}} | ({"initial_policy_checkpoint": str(policies["mlp"])} if policy else {})
    whole, resumed = (policy_learning(world_model, **options) for _ in range(2))
    keeping = {"enable_checkpointing": True, "callbacks": [checkpoint_every(2)]}
    fit(whole, data_of("gamma", "alpha"), 4, **keeping)
    fit(resumed, data_of("gamma", "alpha"), 4, ckpt_path=tmp_path / "step=2.ckpt")
    for name, value in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], value), name


# -- a world model that is trained while a policy learns ---------------------------------------------------------------
DECAYED = {"world_model_optimizer": {"lr": 0.01, "weight_decay": 5.0}, "new_tasks": {"gamma": "alpha"}}


def opened(**parts):
    return callbacks.FinetuneSchedule({name: {"update": update} for name, update in parts.items()})


@pytest.mark.parametrize("second", [("beta", "gamma"), ("gamma",)])
def test_fine_tuning_moves_the_tasks_of_the_second_stream_alone(second, world_model, data_of, fit):
    """Weight decay would shrink the rows of the others, too."""
    module = policy_learning(world_model, **DECAYED)
    fit(module, data_of("beta", "gamma", second=second), 3, callbacks=[opened(encoder=0, task_embedding=0)])
    before, after = load_world_model(world_model).task_embedding.weight, module.world_model.task_embedding.weight
    assert torch.equal(after[0], before[0])
    assert torch.equal(after[1], before[1]) == ("beta" not in second)
    assert not torch.equal(after[2], before[0])


def test_a_new_task_may_be_the_second_streams_alone(world_model, data_of, fit):
    module = policy_learning(world_model, **DECAYED)
    data = data_of("beta", second=("gamma",))
    fit(module, data, 2, callbacks=[opened(task_embedding=0)])
    assert module.world_model.task_names == (*KNOWN, "gamma")
    mean, _ = data.observation_statistics()["gamma"]
    assert module.world_model.obs_mean[2, :4].tolist() == pytest.approx(mean)
    assert module.trained_tasks == ("beta",)


def test_fine_tuning_with_a_new_task_is_resumed_to_the_bit(
    world_model, policies, data_of, fit, checkpoint_every, tmp_path
):
    options = DECAYED | {"initial_policy_checkpoint": str(policies["mlp"])}
    whole, resumed = (policy_learning(world_model, **options) for _ in range(2))
    data = {"second": ("gamma",)}
    keeping = {"enable_checkpointing": True, "callbacks": [checkpoint_every(2), opened(encoder=1, task_embedding=3)]}
    fit(whole, data_of("gamma", "beta", **data), 5, **keeping)
    opening = {"callbacks": [opened(encoder=1, task_embedding=3)]}
    fit(resumed, data_of("gamma", "beta", **data), 5, ckpt_path=tmp_path / "step=2.ckpt", **opening)
    for name, value in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], value), name


# -- what is refused -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("tasks", "new", "said"),
    [
        (["gamma"], {"gamma": "betta"}, r"'gamma' start as 'betta', which is no task.*'beta'.*'mean'"),
        (["beta"], {"beta": "alpha"}, r"'beta', which the model knows already; it knows alpha, beta"),
        (["beta"], {"gamma": "beta"}, r"'gamma', which the data does not have"),
        (["wide"], {"wide": "beta"}, r"'wide', which has 9 observation and 2 action entries, and .* takes 5 and 2"),
        (["strong"], {"strong": "mean"}, r"'strong', which has 5 observation and 3 action entries, and .* 5 and 2"),
        (
            ["cup-catch"],
            {"cup-catch": "mean"},
            r"5 observation and 2 action entries in the data, and 8 and 2 in its env",
        ),
        (["gamma"], None, r"'gamma', which the model does not know.*model\.new_tasks"),
        (["gamma"], {"gamma": 3}, r"holds 'gamma': 3, where names of tasks are expected|new_tasks"),
    ],
)
@pytest.mark.parametrize("kind", ["pre-training", "policy learning"])
def test_what_cannot_be_learnt_is_refused_by_name(kind, tasks, new, said, world_model, data_of, fit):
    def start():
        policy = partial(policy_learning, world_model)
        make = policy if kind == "policy learning" else partial(pretraining, initial_checkpoint=str(world_model))
        fit(make(new_tasks=new), data_of(*tasks), 1)

    with pytest.raises(LitPWMError, match=said):
        start()


def test_a_checkpoint_refers_to_no_model_that_no_file_holds(world_model, data_of, fit):
    module = policy_learning(world_model, new_tasks={"gamma": "beta"}, save_world_model="reference")
    with pytest.raises(LitPWMError, match=r"save_world_model is 'reference'.*learn of gamma.*save_world_model full"):
        fit(module, data_of("gamma"), 1)


def test_fresh_weights_have_no_new_tasks():
    with pytest.raises(LitPWMError, match=r"model\.new_tasks names gamma, and model\.initial_checkpoint is not set"):
        pretraining(new_tasks={"gamma": "beta"})
    with pytest.raises(LitPWMError, match=r"names gamma, and model\.world_model_checkpoint is not set"):
        PolicyLearning(new_tasks={"gamma": "beta"})


# -- ordinary runs ---------------------------------------------------------------------------------------------------
def test_weight_decay_leaves_the_rows_of_absent_tasks_alone(world_model, data_of, fit, tmp_path):
    """Of a fresh model of a task set's names too, and after a resume that brings moments of all rows."""
    decay = {"lr": 0.01, "weight_decay": 5.0}
    before = load_world_model(world_model).task_embedding.weight
    started = pretraining(optimizer=decay, initial_checkpoint=str(world_model))
    fit(started, data_of("beta"), 3)
    assert torch.equal(started.world_model.task_embedding.weight[0], before[0])
    assert not torch.equal(started.world_model.task_embedding.weight[1], before[1])
    resumed = pretraining(optimizer=decay)
    fit(resumed, data_of("beta"), 8, ckpt_path=world_model)  # its optimizer has moments of alpha's row
    assert torch.equal(resumed.world_model.task_embedding.weight[0], before[0])
    assert not torch.equal(resumed.world_model.task_embedding.weight[1], before[1])
    both = pretraining(optimizer=decay, initial_checkpoint=str(world_model))
    fit(both, data_of(*KNOWN), 3)
    assert not torch.equal(both.world_model.task_embedding.weight[0], before[0])
    fit(both, data_of("beta"), 3)  # a module that held no row before, and now does
    kept = both.world_model.task_embedding.weight[0].clone()
    fit(both, data_of(*KNOWN), 3)
    assert not torch.equal(both.world_model.task_embedding.weight[0], kept)
    assert not [name for name in both.state_dict() if "held" in name]


def test_the_command_line_names_new_tasks(world_model, data_of, before_training):
    stores = data_of("gamma").paths

    def act(module):
        found.append((module.world_model.task_names, dict(module.hparams["new_tasks"])))

    for config, option in (("pretrain", "initial_checkpoint"), ("policy_learning", "world_model_checkpoint")):
        found = []
        options = {f"model.{option}": world_model, "model.new_tasks": "{gamma: beta}", "trainer.max_steps": 1}
        data = {"data.store": stores[0], "data.horizon": 3}
        before_training([f"configs/{config}.yaml"], options | data, act)
        assert found == [((*KNOWN, "gamma"), {"gamma": "beta"})]
